// Unpacks the Chromium of the package into TMPDIR, with libraries and fonts, and prints its path.
import chromium from "@sparticuz/chromium";

process.stdout.write(await chromium.executablePath());
