"use strict";
// Two comforts: a policy is shown or hidden by its button, and a chart is read under the pointer.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    const drawn = `svg [data-series="${button.dataset.series}"]`;
    for (const part of document.querySelectorAll(drawn)) part.classList.toggle("off", !shown);
  });
}

const value = (part, least, most, log) =>
  log ? Math.pow(10, Math.log10(least) + part * (Math.log10(most) - Math.log10(least)))
      : least + part * (most - least);
const round = (number) => Number(number.toPrecision(3)).toLocaleString("en");
const span = (seconds) => {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= size) return `${round(seconds / size)} ${unit}`;
  return `${round(seconds)} s`;
};

for (const svg of document.querySelectorAll("svg")) {
  const lines = [...svg.querySelectorAll("polyline")];
  if (!lines.length) continue;
  const [left, top, width, height] = svg.dataset.box.split(" ").map(Number);
  const d = svg.dataset;
  const share = Number(d.y1) === 1;
  const points = lines.map((line) =>
    line.getAttribute("points").split(" ").filter(Boolean).map((p) => p.split(",").map(Number)));
  const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cross.setAttribute("class", "cross off");
  cross.setAttribute("y1", top);
  cross.setAttribute("y2", top + height);
  svg.append(cross);
  const reading = svg.parentElement.querySelector(".reading");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * (svg.viewBox.baseVal.width / box.width);
    const part = (x - left) / width;
    const inside = part >= 0 && part <= 1;
    cross.classList.toggle("off", !inside);
    reading.hidden = !inside;
    if (!inside) return;
    cross.setAttribute("x1", x);
    cross.setAttribute("x2", x);
    const told = [span(value(part, Number(d.x0), Number(d.x1), d.xlog === "1"))];
    lines.forEach((line, n) => {
      if (line.classList.contains("off") || !points[n].length) return;
      let at = points[n].findIndex((p) => p[0] > x);
      at = at < 0 ? points[n].length - 1 : Math.max(0, at - 1);
      const y = (top + height - points[n][at][1]) / height;
      const number = value(y, Number(d.y0), Number(d.y1), d.ylog === "1");
      told.push(`${line.dataset.name}: ${share ? (100 * number).toFixed(1) + " %" : round(number)}`);
    });
    reading.textContent = told.join("\n");
  });
  svg.addEventListener("pointerleave", () => {
    cross.classList.add("off");
    reading.hidden = true;
  });
}
