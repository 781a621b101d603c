(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  // An explicit list of buttons: one of the default ones uploads the plot to a web service.
  var zoomable = [["toImage", "zoom2d", "pan2d", "autoScale2d", "resetScale2d"]];
  function config(figure) {
    return {
      responsive: true,
      displaylogo: false,
      showSendToCloud: false,
      plotlyServerURL: "",
      modeBarButtons: figure.layout.dragmode ? zoomable : [["toImage"]]
    };
  }
  var drawn = [];

  function draw(node) {
    if (drawn.indexOf(node) >= 0) return;
    var figure = figures[node.getAttribute("data-figure")];
    var settings = config(figure);
    // A finger on the plot scrolls the page rather than zooming the plot.
    if (window.matchMedia("(pointer: coarse)").matches) figure.layout.dragmode = false;
    drawn.push(node);
    Plotly.newPlot(node, figure.data, figure.layout, settings);
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

  drawWithin(document);
  // A plot drawn inside a closed element has no width, so these wait until they are opened.
  document.querySelectorAll("details").forEach(function (element) {
    element.addEventListener("toggle", function () { if (element.open) drawWithin(element); });
  });
  // Plots keep the window's width on paper unless they are told.
  window.addEventListener("beforeprint", function () { width(640); });
  window.addEventListener("afterprint", function () { width(0); });
})();
