// Follows the theme that is chosen in Airflow, which keeps it in this origin's storage.
(function () {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function apply() {
    let chosen = null;
    try {
      chosen = window.localStorage.getItem("theme");
    } catch (error) {
      // Storage may be forbidden: the system's theme is what remains.
    }
    const isDark = chosen === "dark" || (chosen !== "light" && dark.matches);
    const theme = isDark ? "dark" : "light";
    if (document.documentElement.dataset.theme !== theme) {
      document.documentElement.dataset.theme = theme;
      document.dispatchEvent(new Event("flead:theme"));
    }
  }

  apply();
  window.addEventListener("storage", apply);
  dark.addEventListener("change", apply);
})();
