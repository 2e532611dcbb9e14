// Draws the charts in the page's colours and filters the answers. No framework, no network.
"use strict";

const charts = [...document.querySelectorAll("[data-chart]")].map((place) => ({
  place,
  figure: JSON.parse(place.nextElementSibling.textContent),
}));

function pageColors() {
  const styles = getComputedStyle(document.documentElement);
  const color = (name) => styles.getPropertyValue(name).trim();
  const axis = { gridcolor: color("--line"), linecolor: color("--line"), tickcolor: color("--line") };
  const whisker = { color: color("--ink") };
  return {
    data: { bar: [{ error_x: whisker }], scatter: [{ error_y: whisker }] },
    layout: {
      font: { color: color("--soft"), size: 13, family: getComputedStyle(document.body).fontFamily },
      xaxis: axis,
      yaxis: axis,
      hoverlabel: { bgcolor: color("--ink"), bordercolor: color("--ink"), font: { color: color("--paper") } },
    },
  };
}

function drawCharts() {
  const template = pageColors();
  for (const { place, figure } of charts) {
    const layout = { ...structuredClone(figure.layout), template };
    Plotly.react(place, figure.data, layout, { responsive: true, displayModeBar: false });
  }
}

drawCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);

const form = document.querySelector("#filters");
if (form) {
  const PAGE = 30; // rows shown before "Show more"
  const samples = [...document.querySelectorAll(".sample")].map((element) => ({
    element,
    wrong: element.dataset.wrong === "yes",
    labels: JSON.parse(element.dataset.labels),
    text: element.textContent.toLowerCase(),
  }));
  const count = document.querySelector("#shown-samples");
  const more = document.querySelector("#more-samples");
  let limit = PAGE;

  const showSamples = () => {
    const wanted = [...form.querySelectorAll("select")].filter((select) => select.value);
    const search = form.elements.search.value.toLowerCase();
    const fitting = samples.filter(
      (sample) =>
        (!form.elements.wrong.checked || sample.wrong) &&
        wanted.every((select) => sample.labels[select.dataset.field] === select.value) &&
        sample.text.includes(search),
    );
    const shown = new Set(fitting.slice(0, limit));
    for (const sample of samples) sample.element.hidden = !shown.has(sample);
    more.hidden = shown.size === fitting.length;
    const part = more.hidden ? "" : `, the first ${shown.size} are shown`;
    count.textContent = fitting.length
      ? `${fitting.length} of ${samples.length} answers${part}`
      : "No answer fits these filters";
  };
  const filterSamples = () => {
    limit = PAGE;
    showSamples();
  };

  form.addEventListener("input", filterSamples);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.querySelector("#clear-filters").addEventListener("click", () => {
    form.reset();
    filterSamples();
  });
  more.addEventListener("click", () => {
    limit += PAGE;
    showSamples();
  });
  showSamples(); // a reloaded page keeps what was typed
}
