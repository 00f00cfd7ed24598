// What forms and links cannot do by themselves: a question in a dialog instead of on a page of its own, a button that is pressed
// once, a choice of all. Without this file everything still works.
"use strict";

(() => {
  const dialog = () => document.getElementById("dialog");

  // A link that asks first has been answered into the dialog.
  document.addEventListener("htmx:afterSwap", (event) => {
    const box = dialog();
    if (box && event.target === box) {
      box.showModal();
      box.querySelector("textarea, input:not([type=hidden]), button")?.focus();
    }
  });

  // A page that moves says to who cannot see it only what it has come to, and only when that is something else.
  document.addEventListener("htmx:afterSwap", () => {
    const news = document.getElementById("news");
    const status = document.getElementById("status")?.innerText;
    if (news && status && news.textContent !== status) news.textContent = status;
  });

  document.addEventListener("click", (event) => {
    const closer = event.target.closest("[data-closes]");
    if (closer && dialog()?.open) {
      event.preventDefault();
      dialog().close();
    }
  });

  // What says that it is a button is pressed by the space bar, too.
  document.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target.matches?.("a[role=button]")) {
      event.preventDefault();
      event.target.click();
    }
  });

  // Pressed twice is pressed once. Coming back to the page begins anew.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    if (form.method === "post") {
      form.dataset.sent = "yes";
    }
  });
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
  });

  // Letters that are chosen go into the links' addresses.
  const choose = () => {
    const chosen = [...document.querySelectorAll("input[name=id]:checked")].map((box) => box.value);
    document.querySelectorAll("a[data-of-chosen]").forEach((link) => {
      const address = link.dataset.ofChosen;
      const whole = chosen.length ? `${address}?ids=${chosen.join(",")}` : address;
      link.setAttribute("href", whole);
      link.setAttribute("hx-get", whole);
      link.querySelector("[data-which]").textContent = chosen.length ? `${chosen.length} chosen` : "all";
      window.htmx?.process(link);
    });
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("input[data-all]")) {
      document.querySelectorAll("input[name=id]").forEach((box) => { box.checked = event.target.checked; });
    }
    if (event.target.matches("input[data-all], input[name=id]")) {
      choose();
    }
  });
})();
