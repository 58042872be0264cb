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
  document.documentElement.dataset.charts = "done";
})();
