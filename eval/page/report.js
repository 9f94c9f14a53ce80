// Sorting of tables by their headers, and the steps of the waterfall, which depend on the order of its rows.
(() => {
  "use strict";

  function steps(table) {
    if (!table.classList.contains("waterfall")) return;
    let level = Number(table.dataset.from), lowest = level, highest = level;
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      level -= Number(row.dataset.saved);
      lowest = Math.min(lowest, level);
      highest = Math.max(highest, level);
    }
    const range = highest - lowest || 1;
    level = Number(table.dataset.from);
    for (const row of rows) {
      const saved = Number(row.dataset.saved), next = level - saved;
      const step = row.querySelector(".step");
      step.classList.toggle("up", saved < 0);
      step.style.setProperty("--from", `${(100 * (Math.min(level, next) - lowest)) / range}%`);
      step.style.setProperty("--size", `${(100 * Math.abs(saved)) / range}%`);
      level = next;
    }
  }

  function sort(table, column, kind, order) {
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (kind === "text") return sign * x.localeCompare(y);
      if (x === "" || y === "") return (x === "") - (y === ""); // unknown figures last, whichever the order
      return sign * (Number(x) - Number(y));
    });
    table.tBodies[0].append(...rows);
    [...table.tHead.rows[0].cells].forEach((cell, i) => {
      if (cell.dataset.kind) cell.setAttribute("aria-sort", i === column ? order : "none");
    });
    steps(table);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.querySelector("button")?.addEventListener("click", () => {
        const first = cell.dataset.kind === "text" ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        sort(table, column, cell.dataset.kind, cell.getAttribute("aria-sort") === first ? other : first);
      });
    });
    steps(table);
  }
})();
