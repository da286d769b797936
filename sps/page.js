// Draws every figure of the page in the colours of the reader's scheme. Colours in figures are names, such as
// "theme:blue/0.2" (a custom property of the style sheet and its opacity) or "theme:ramp(0.4)" (between ramp-0 and ramp-1).
"use strict";
(() => {
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const value = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const parts = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const rgba = ([r, g, b], alpha) => `rgba(${r},${g},${b},${alpha})`;

  function colour(text) {
    const [name, alpha] = text.slice("theme:".length).split("/");
    const ramp = name.match(/^ramp\((.*)\)$/);
    if (!ramp) return rgba(parts(value(name)), alpha ?? 1);
    const [low, high] = [parts(value("ramp-0")), parts(value("ramp-1"))];
    return rgba(low.map((x, i) => Math.round(x + (high[i] - x) * Number(ramp[1]))), alpha ?? 1);
  }

  function themed(item) {
    if (typeof item === "string") return item.startsWith("theme:") ? colour(item) : item;
    if (Array.isArray(item)) return item.map(themed);
    if (item && typeof item === "object") return Object.fromEntries(Object.entries(item).map(([k, v]) => [k, themed(v)]));
    return item;
  }

  const isObject = (item) => item && typeof item === "object" && !Array.isArray(item);
  function merged(under, over) {
    const both = { ...under };
    for (const [key, item] of Object.entries(over)) both[key] = isObject(item) && isObject(under[key]) ? merged(under[key], item) : item;
    return both;
  }

  function whole(own) {
    const axis = {
      gridcolor: "theme:rule", linecolor: "theme:rule", zeroline: false, automargin: true, ticks: "", fixedrange: true,
      title: { standoff: 8, font: { size: 12 } },
    };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "x unified", dragmode: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "theme:muted" },
      margin: { l: 44, r: 14, t: 8, b: 38 }, xaxis: { ...axis, showgrid: false }, yaxis: axis,
      hoverlabel: { bgcolor: "theme:card", bordercolor: "theme:rule", font: { size: 12, color: "theme:ink" } },
    };
    return themed(merged(base, own));
  }

  const figures = [...document.querySelectorAll(".plot")].map((node) => [node, JSON.parse(node.querySelector("script").textContent)]);
  const draw = () => {
    for (const [node, { data, layout }] of figures) {
      Plotly.react(node, themed(data), whole(layout), { responsive: true, displayModeBar: false });
    }
  };
  draw();
  scheme.addEventListener("change", draw);
})();
