"use strict";
// Sorting, filtering, pictures and links; without it the page shows everything in its own order.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tools = document.querySelector(".tools");
  const rows = all("article.rows tbody tr").map((row) => ({
    row,
    text: `${row.closest("article").querySelector("h3").textContent} ${row.textContent}`.toLowerCase(),
  }));
  const runs = all("details.run").map((run) => ({ run, text: run.textContent.toLowerCase() }));

  // --- sorting -----------------------------------------------------------------------------

  const collator = new Intl.Collator("en", { numeric: true });

  function compare(a, b, direction) {
    const x = a.dataset.value, y = b.dataset.value;
    if (x !== undefined && y !== undefined) return direction * (Number(x) - Number(y));
    if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1; // empty cells last
    return direction * collator.compare(a.textContent, b.textContent);
  }

  function sort(header) {
    const down = header.getAttribute("aria-sort") === "ascending";
    const body = header.closest("table").tBodies[0];
    const order = [...body.rows];
    order.sort((a, b) => compare(a.cells[header.cellIndex], b.cells[header.cellIndex], down ? -1 : 1));
    all("th", header.parentElement).forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...order);
  }

  for (const button of all(".sortable thead button")) {
    button.disabled = false;
    button.addEventListener("click", () => sort(button.closest("th")));
  }

  // --- filtering ---------------------------------------------------------------------------

  function filter() {
    const words = tools.querySelector("[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (text) => words.every((word) => text.includes(word));
    const kinds = all("[type=checkbox]", tools);
    for (const box of kinds) document.body.classList.toggle(`without-${box.value}`, !box.checked);
    const shown = kinds.filter((box) => box.checked).map((box) => `td.${box.value}:not(.empty)`);
    const someHidden = shown.length < kinds.length;
    let count = 0;
    for (const { row, text } of rows) {
      const bare = someHidden && !(shown.length && row.querySelector(shown.join()));
      row.hidden = bare || !matches(text);
      count += !row.hidden;
    }
    for (const table of all("article.rows"))
      table.hidden = !table.querySelector("tbody tr:not([hidden])");
    for (const { run, text } of runs) run.hidden = !matches(text);
    tools.querySelector("output").textContent = `${count} of ${rows.length} rows`;
  }

  if (tools) {
    tools.hidden = false;
    tools.addEventListener("submit", (event) => event.preventDefault());
    tools.addEventListener("input", filter);
    filter();
  }

  // --- pictures ----------------------------------------------------------------------------

  for (const button of all(".zoom")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      button.setAttribute("aria-expanded", button.getAttribute("aria-expanded") !== "true");
    });
  }

  // --- a link into a closed or filtered part opens it --------------------------------------

  function reveal() {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.closest("[hidden]")) {
      tools.reset();
      filter();
    }
    if (target.matches("details")) target.open = true;
    target.scrollIntoView();
  }

  window.addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) reveal(); // clicked once more: no hashchange
  });
  reveal();

  // --- paper has no closed parts -----------------------------------------------------------

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const part of closed) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of closed) part.open = false;
  });

  // --- while runs are under way ------------------------------------------------------------

  const seconds = Number(document.body.dataset.refresh);
  if (seconds) {
    const busy = () =>
      document.hidden || document.querySelector("details[open], [aria-expanded=true]") ||
      tools?.querySelector("[type=search]").value;
    const status = document.getElementById("refresh");
    setInterval(() => {
      if (busy()) status.textContent = " · waits to refresh while a run, a picture or a filter is open";
      else location.reload();
    }, 1000 * seconds);
    status.textContent = ` · refreshes every ${seconds} s`;
  }
})();
