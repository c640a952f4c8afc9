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

  // What is no page is said beside the page, or in the dialog that asked for it.
  document.addEventListener("htmx:before:response", (event) => {
    const response = event.detail.ctx.response;
    if ((response.headers.get("content-type") || "").includes("html")) {
      note().textContent = "";
      return;
    }
    event.preventDefault();
    response.raw.json().catch(() => ({})).then((answer) => say(response.status, answer.detail));
  });

  function say(status, detail) {
    const known = { 401: "You are logged out: reload Airflow", 403: "You are not allowed to do this" };
    const text = known[status] || (typeof detail === "string" ? detail : `It failed (${status})`);
    const place = document.querySelector("dialog[open] [role=status]");
    if (!place) {
      note().textContent = text;
      return;
    }
    const failure = document.createElement("p");
    failure.className = "answer bad";
    failure.textContent = text;
    place.replaceChildren(failure);
  }

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

  show();
})();
