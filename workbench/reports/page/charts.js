/**
 * Draws the page's Vega-Lite charts in the reader's colour scheme, and again when that changes.
 *
 * `wb-charts` holds {id: specification}. No menu, no loader: all data is in the specification.
 */
(async () => {
  "use strict";
  const specs = JSON.parse(document.getElementById("wb-charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const theme = (night) => {
    const [ink, soft, line] = night ? ["#e8eaed", "#a3acb7", "#363d45"] : ["#1b1f24", "#57606a", "#dfe3e8"];
    const category = night
      ? ["#6fb1de", "#f0b357", "#9aa4af", "#7fd1a8"]
      : ["#2f6f9f", "#b26a00", "#6b7580", "#1d7f54"];
    const font = "system-ui, sans-serif";
    return {
      background: "transparent",
      font,
      view: { stroke: "transparent" },
      axis: {
        labelColor: soft, titleColor: soft, gridColor: line, domainColor: soft, tickColor: line,
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelFont: font, titleFont: font, gridOpacity: 0.7,
      },
      axisX: { labelFlush: false, labelOverlap: "greedy", tickCount: 7 },
      axisY: { domain: false, ticks: false, labelPadding: 6 },
      legend: { labelColor: ink, titleColor: soft },
      range: { category },
      line: { color: category[0], strokeWidth: 2 },
      bar: { color: category[0] },
      rect: { color: category[0] },
      point: { color: category[0] },
      rule: { color: soft },
      text: { color: ink },
    };
  };

  const draw = async () => {
    const config = theme(dark.matches);
    for (const [id, spec] of Object.entries(specs)) {
      const place = document.getElementById(id);
      try {
        const { config: own, ...rest } = spec;
        await vegaEmbed(place, { ...rest, config: { ...own, ...config } }, { actions: false, renderer: "svg" });
        place.dataset.drawn = "true";
      } catch (error) {
        place.textContent = `This chart could not be drawn (${error.message}); its data is in the table below.`;
        console.error(error);
      }
    }
  };
  await draw();
  dark.addEventListener("change", draw);

  /* Downloads are made from what the page holds. */
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = ({ datasets = {} }) =>
    Object.values(datasets)
      .map((rows) => {
        const names = Object.keys(rows[0] ?? {});
        return [names, ...rows.map((row) => names.map((name) => row[name]))].map((r) => r.map(cell).join(",")).join("\r\n");
      })
      .join("\r\n\r\n");
  const save = (name, text, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const button of document.querySelectorAll("button.download")) {
    const id = button.dataset.chart;
    button.addEventListener("click", () => {
      if (id) save(`${id.replace(/^chart-/, "")}.csv`, csv(specs[id]), "text/csv");
      else save("numbers.json", JSON.stringify(Object.fromEntries(Object.entries(specs).map(([name, s]) => [name, s.datasets]))), "application/json");
    });
  }
  document.documentElement.dataset.charts = "done";
})();
