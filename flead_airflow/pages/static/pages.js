// Pages renew themselves: the same address is asked again and what has changed is put in place.
(function () {
  "use strict";
  const EVERY_SECONDS = 10;
  const note = () => document.getElementById("live-note");
  const button = () => document.getElementById("live-switch");
  let isOn = sessionStorage.getItem("flead.live") !== "off";

  function show() {
    button().setAttribute("aria-pressed", String(isOn));
    button().title = isOn ? "Renewed every 10 seconds; press to pause" : "Paused; press to go on";
  }

  function renew() {
    return htmx.ajax("GET", location.href, {
      target: "#live",
      select: "#live",
      swap: "outerMorph",
    });
  }

  setInterval(() => {
    const isBusy = document.querySelector("dialog[open]") !== null;
    if (isOn && !document.hidden && !isBusy) renew();
  }, EVERY_SECONDS * 1000);

  document.addEventListener("visibilitychange", () => {
    if (isOn && !document.hidden) renew();
  });

  button().addEventListener("click", () => {
    isOn = !isOn;
    sessionStorage.setItem("flead.live", isOn ? "on" : "off");
    show();
    if (isOn) renew();
  });

  // What cannot be shown in place of a page says so beside it.
  document.addEventListener("htmx:before:response", (event) => {
    const status = event.detail.ctx.response.status;
    const isHtml = (event.detail.ctx.response.headers.get("content-type") || "").includes("html");
    if (isHtml) {
      note().textContent = "";
      return;
    }
    event.preventDefault();
    const answer = document.querySelector("dialog[open] [role=status]");
    if (answer) {
      const failure = document.createElement("p");
      failure.className = "answer bad";
      failure.textContent = status === 403 ? "You are not allowed to do this" : `It failed (${status})`;
      answer.replaceChildren(failure);
    } else if (status === 401) note().textContent = "You are logged out: reload Airflow";
    else if (status === 403) note().textContent = "You are not allowed to see this";
    else note().textContent = `No answer (${status})`;
  });
  document.addEventListener("htmx:error", () => {
    note().textContent = "The server does not answer; trying again";
  });

  // An action asks first; the answer stays in its dialog.
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-rollback]");
    const dialog = document.getElementById("rollback");
    if (opener && dialog) {
      dialog.querySelector("form").reset();
      dialog.querySelector("[name=version]").value = opener.dataset.rollback;
      dialog.querySelector("[data-version]").textContent = opener.dataset.rollback;
      document.getElementById("rollback-answer").replaceChildren();
      dialog.showModal();
      dialog.querySelector("[name=reason]").focus();
    } else if (event.target.closest("[data-close]")) {
      event.target.closest("dialog").close();
      if (isOn) renew();
    }
  });

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

  show();
})();
