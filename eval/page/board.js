// The leaderboard's filters, and a row's raw results in a dialog.
(() => {
  "use strict";
  const rows = [...document.querySelectorAll(".board tbody tr")];
  const words = document.getElementById("words");
  const choices = ["board", "kind"].map((name) => document.getElementById(name));
  const shown = document.getElementById("shown");

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const fits = wanted.every((word) => row.dataset.words.includes(word))
        && choices.every((choice) => !choice.value || row.dataset[choice.id] === choice.value);
      row.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  }
  for (const control of [words, ...choices]) control.addEventListener("input", filter);
  filter();

  const data = JSON.parse(document.getElementById("raw-data").textContent);
  const dialog = document.querySelector("dialog.raw");
  const body = document.getElementById("raw-body");
  let opener = null;

  function element(tag, text, parent) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }
  function table(title, list) {
    if (!list || !list.length) return;
    const details = element("details", undefined, body);
    element("summary", `${title} (${list.length})`, details);
    const box = element("div", undefined, details);
    box.className = "wide";
    const made = element("table", undefined, box);
    const names = [...new Set(list.flatMap(Object.keys))];
    const head = element("tr", undefined, element("thead", undefined, made));
    for (const name of names) element("th", name, head).scope = "col";
    const rest = element("tbody", undefined, made);
    for (const row of list) {
      const line = element("tr", undefined, rest);
      for (const name of names) element("td", row[name] === undefined ? "–" : String(row[name]), line);
    }
  }
  for (const button of document.querySelectorAll(".raw-button")) {
    button.addEventListener("click", () => {
      const row = data[Number(button.dataset.row)];
      opener = button;
      document.getElementById("raw-title").textContent = row.name;
      body.replaceChildren();
      element("p", row.board, body).className = "muted";
      const link = element("a", row.raw, element("p", "All of it: ", body));
      link.href = row.raw;
      const { situations, ...facts } = row.facts;
      const files = facts["scored files"];
      delete facts["scored files"];
      table("Situations", situations);
      table("Scored files", files);
      element("pre", JSON.stringify(facts, null, 1), body).tabIndex = 0;
      dialog.showModal();
    });
  }
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => opener?.focus());
})();
