// Leads out of Airflow's frame. Not deferred: a link works as soon as it is seen.
(function () {
  "use strict";
  // The frame may not navigate the page around it; that page may follow a link of its own.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    const isPlain = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0;
    if (!link || window.parent === window || !isPlain) return;
    event.preventDefault();
    const outer = window.parent.document.createElement("a");
    outer.href = link.href;
    window.parent.document.body.append(outer);
    outer.click();
    outer.remove();
  });
})();
