{
  const body = document.querySelector(".list tbody");
  const rows = [...body.rows];
  const value = (row, column) => row.cells[column].dataset.sort ?? "";
  for (const head of document.querySelectorAll("th[data-order]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.order;
      const order = head.ariaSort === first ? (first === "ascending" ? "descending" : "ascending") : first;
      for (const other of document.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.ariaSort = order;
      const sign = order === "ascending" ? 1 : -1;
      const text = head.dataset.kind === "text";
      const compare = (a, b) => {
        const [x, y] = [a, b].map((row) => value(row, head.cellIndex));
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (text ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
      };
      body.append(...[...rows].sort(compare));
    });
  }
  const label = document.createElement("label");
  label.className = "find";
  const box = document.createElement("input");
  box.type = "search";
  label.append("Find ", box);
  document.querySelector(".filter").after(label);
  box.addEventListener("input", () => {
    const wanted = box.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
