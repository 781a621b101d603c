// Draws the figures of the data block, when they can be seen.
(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  // An explicit list of buttons: one of the default ones uploads the plot to a web service.
  var zoomable = [["toImage", "zoom2d", "pan2d", "autoScale2d", "resetScale2d"]];
  var drawn = [];
  var opened = [];

  function draw(node) {
    if (drawn.indexOf(node) >= 0) return;
    var figure = figures[node.getAttribute("data-figure")];
    var buttons = figure.layout.dragmode ? zoomable : [["toImage"]];
    // A finger on the plot scrolls the page rather than zooming the plot.
    if (window.matchMedia("(pointer: coarse)").matches) figure.layout.dragmode = false;
    // Slanted names need more room below than a phone has beside.
    var across = figure.layout.xaxis;
    if (window.innerWidth < 600 && across && across.tickangle) across.tickangle = -90;
    drawn.push(node);
    Plotly.newPlot(node, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      showSendToCloud: false,
      plotlyServerURL: "",
      modeBarButtons: buttons
    });
  }
  function drawWithin(root) {
    root.querySelectorAll("[data-figure]").forEach(function (node) {
      if (!node.closest("details:not([open])")) draw(node);
    });
  }
  function width(pixels) {
    drawn.forEach(function (node) {
      Plotly.relayout(node, pixels ? { autosize: false, width: pixels }
                                   : { autosize: true, width: null });
    });
  }
  // On paper everything is open but what stands behind a warning, and plots keep the window's
  // width unless they are told.
  function toPaper() {
    if (opened.length === 0) {
      document.querySelectorAll("details:not([open]):not(.warned)").forEach(function (element) {
        element.open = true;
        opened.push(element);
      });
    }
    drawWithin(document);
    width(640);
  }
  function toScreen() {
    opened.forEach(function (element) { element.open = false; });
    opened = [];
    width(0);
    document.body.classList.remove("whole");
  }

  // Without it one page is printed: the summary.
  var whole = document.getElementById("print-whole");
  if (whole) {
    whole.hidden = false;
    whole.addEventListener("click", function () {
      document.body.classList.add("whole");
      window.print();
    });
  }

  var note = document.getElementById("no-script");
  if (note) note.hidden = true;
  drawWithin(document);
  // A plot drawn inside a closed element has no width, so these wait until they are opened.
  document.querySelectorAll("details").forEach(function (element) {
    element.addEventListener("toggle", function () { if (element.open) drawWithin(element); });
  });
  window.addEventListener("beforeprint", toPaper);
  window.addEventListener("afterprint", toScreen);
  window.matchMedia("print").addEventListener("change", function (change) {
    if (change.matches) toPaper(); else toScreen();
  });
})();
