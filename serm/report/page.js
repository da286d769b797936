// The page works without this: it adds the theme's switch, sorting, finding, and opening what a link points at.
"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const remember = (value) => { try { localStorage.setItem("serm-theme", value); } catch { /* a file may have no storage */ } };
  const remembered = () => { try { return localStorage.getItem("serm-theme"); } catch { return null; } };
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  function show() {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${dark() ? "light" : "dark"} theme`);
  }
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remember(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();

  // Numbers by size, texts by alphabet, what has no value always last.
  function order(table, index, ascending) {
    const value = (row) => row.cells[index].dataset.sort;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const numbers = [Number(x), Number(y)];
      const found = numbers.every(Number.isFinite) ? numbers[0] - numbers[1] : x.localeCompare(y);
      return ascending ? found : -found;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
  }
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => head.querySelector("button")?.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      order(table, index, ascending);
    }));
  }

  for (const finder of document.querySelectorAll(".finder")) {
    const rows = [...finder.parentElement.querySelector("tbody").rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    finder.querySelector("input").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/u).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        row.hidden = !words.every((word) => texts[index].includes(word));
        shown += !row.hidden;
      });
      const all = rows.length.toLocaleString("en");
      finder.querySelector(".found").textContent = shown === rows.length ? `${all} rows` : `${shown.toLocaleString("en")} of ${all} rows`;
    });
  }

  for (const fold of document.querySelectorAll(".fold")) {
    const parts = [...fold.closest("section").querySelectorAll(".stack > details")];
    fold.hidden = parts.length === 0;
    fold.addEventListener("click", () => {
      const open = parts.some((part) => !part.open);
      for (const part of parts) part.open = open;
      fold.textContent = open ? "Close all rounds" : "Open all rounds";
    });
  }

  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
