// Theme: follows the system until a person chooses; the choice is kept where the browser allows it.
(() => {
  "use strict";
  const order = ["auto", "light", "dark"];
  const label = { auto: "Auto", light: "Light", dark: "Dark" };
  let theme = "auto";
  try { theme = localStorage.getItem("constructible-theme") || "auto"; } catch { /* storage may be off for files */ }
  const buttons = [...document.querySelectorAll(".theme-toggle")];
  function apply() {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    for (const button of buttons) {
      button.textContent = { auto: "◐ ", light: "☼ ", dark: "☾ " }[theme] + label[theme];
      button.setAttribute("aria-label", `Colour theme: ${label[theme]}. Press to change.`);
    }
  }
  for (const button of buttons) {
    button.addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try { localStorage.setItem("constructible-theme", theme); } catch { /* the choice lasts as long as the page */ }
      apply();
    });
  }
  if (!order.includes(theme)) theme = "auto";
  apply();
})();
