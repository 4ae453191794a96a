"use strict";
// Hides the rows that lack a typed word or a chosen label. It reads text and makes none but the count; without it all
// rows are shown and the controls stay hidden.
const plain = (text) => text.normalize("NFKC").toLowerCase();

for (const place of document.querySelectorAll(".filtered")) {
  const bar = place.querySelector(".filter");
  const search = bar.querySelector("input");
  const choices = Array.from(bar.querySelectorAll("select"));
  const count = bar.querySelector("output");
  const clear = bar.querySelector("button");
  const rows = Array.from(place.querySelectorAll("[data-labels]"), (element) => ({
    element,
    labels: new Set(element.dataset.labels.split(" ")),
    text: plain(element.textContent),
  }));

  const narrow = () => {
    const words = plain(search.value).split(/\s+/);
    const labels = choices.map((choice) => choice.value).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = labels.every((label) => row.labels.has(label)) && words.every((word) => row.text.includes(word));
      row.element.hidden = !fits;
      shown += fits;
    }
    count.value = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows shown`;
    clear.disabled = !labels.length && !search.value;
  };
  const reset = () => {
    search.value = "";
    for (const choice of choices) choice.value = "";
    narrow();
    search.focus();
  };

  bar.addEventListener("input", narrow);
  bar.addEventListener("keydown", (event) => { if (event.key === "Escape") reset(); });
  clear.addEventListener("click", reset);
  bar.hidden = false;
  narrow(); // a browser may have kept what was typed before the page was loaded again
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const inputs = Array.from(document.querySelectorAll(".filter input"));
  const input = inputs.find((one) => one.checkVisibility()) ?? inputs[0];
  input.closest("details")?.setAttribute("open", "");
  input.focus();
  event.preventDefault();
});
