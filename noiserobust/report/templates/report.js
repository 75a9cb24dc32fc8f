"use strict";
// Without this script the page shows everything at the target level; with it tables sort and levels can be switched.
const number = (text) => parseFloat(text.replace(/[−–]/g, "-").replace(/[,%+<>]/g, ""));
const key = (row, column) => {
  const cell = row.cells[column];
  const given = cell.dataset.value;
  const value = given === undefined ? number(cell.textContent) : parseFloat(given);
  return { text: cell.textContent.trim(), value };
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.querySelectorAll("th[data-sort]")];
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const column = Number(head.dataset.sort);
      // Names go up first, numbers down: what is highest is looked for.
      const first = column === 0 ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, ...key(row, column) }));
      rows.sort((a, b) => {
        if (column === 0) return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
        if (Number.isNaN(a.value) && Number.isNaN(b.value)) return sign * a.text.localeCompare(b.text);
        if (Number.isNaN(a.value) || Number.isNaN(b.value)) return Number.isNaN(a.value) - Number.isNaN(b.value);
        return a.value === b.value ? 0 : sign * (a.value < b.value ? -1 : 1);
      });
      table.tBodies[0].append(...rows.map((each) => each.row));
    });
  }
}
for (const group of document.querySelectorAll("[data-switch]")) {
  const line = group.querySelector(".switch");
  line.hidden = false;
  line.querySelector("select").addEventListener("change", (event) => {
    for (const panel of group.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== event.target.value;
  });
}
