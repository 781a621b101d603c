// The sliders: which heads other shares would protect and prune, in the maps and in words.
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("explorer-data").textContent);
  if (!data) return;
  function element(id) { return document.getElementById(id); }
  var gamma = element("gamma"), alpha = element("alpha"), axis = element("axis");
  var colour = element("colour"), layer = element("layer"), head = element("head");
  var maps = { bias: figure("bias-0"), ppl: figure("ppl") };
  var total = data.layers * data.heads;

  function figure(key) { return document.querySelector('[data-figure="' + key + '"]'); }
  function fixed(value, decimals) {
    var text = value.toFixed(decimals);
    return Number(text) === 0 ? text.replace("-", "") : text;
  }
  function signed(value, decimals) {
    return (Number(fixed(value, decimals)) > 0 ? "+" : "") + fixed(value, decimals);
  }
  function share(change, of) {
    return of ? signed(100 * change / of, 1) + "%" : "no share";
  }
  function withError(value, error) {
    if (!(error > 0)) return String(Number(value.toPrecision(3)));
    var decimals = Math.min(Math.max(1 - Math.floor(Math.log10(error)), 0), 12);
    return fixed(value, decimals) + " ± " + error.toFixed(decimals);
  }
  function pair(index) { return Math.floor(index / data.heads) + "." + index % data.heads; }
  function rows(values) {
    var out = [];
    for (var i = 0; i < data.layers; i++) out.push(values.slice(i * data.heads, (i + 1) * data.heads));
    return out;
  }
  function status(chosen, index) {
    if (chosen.heads.indexOf(index) >= 0) return "pruned";
    return chosen.protected[index] ? "protected" : "";
  }
  function numbersOf(chosen, index) {
    var bias = data.axes[axis.value], ppl = data.ppl;
    var lines = [
      "layer " + Math.floor(index / data.heads) + ", head " + index % data.heads,
      "z_bias " + withError(bias.effect[index], bias.stderr && bias.stderr[index]),
      "z_ppl " + withError(ppl.effect[index], ppl.stderr && ppl.stderr[index])
    ];
    return lines.concat(status(chosen, index) || []);
  }

  function drawMap(node, metric, scale, chosen, hovers) {
    if (!node || !node.data) return;
    var errors = colour.value === "stderr" && metric.stderr;
    var values = errors || metric.effect;
    var largest = errors ? Math.max.apply(null, values) || 1 : metric.limit;
    var marks = { pruned: [], protected: [] };
    for (var i = 0; i < total; i++) if (status(chosen, i)) marks[status(chosen, i)].push(i);
    function across(list) { return list.map(function (i) { return i % data.heads; }); }
    function down(list) { return list.map(function (i) { return Math.floor(i / data.heads); }); }
    Plotly.restyle(node, {
      z: [rows(values)],
      text: [rows(hovers)],
      zmin: [errors ? 0 : -largest],
      zmax: [largest],
      colorscale: [errors ? data.scales.error : scale]
    }, [0]);
    Plotly.restyle(node, {
      x: [across(marks.pruned), across(marks.protected)],
      y: [down(marks.pruned), down(marks.protected)]
    }, [1, 2]);
    var frame = node.closest("figure");
    var caption = document.getElementById("caption-" + node.getAttribute("data-figure"));
    caption.textContent = errors ? "Standard error of the effect; darker: larger." : metric.caption;
    ["pruned", "protected"].forEach(function (name) {
      var label = frame.querySelector('[data-count="on-map ' + name + '"]');
      if (label) label.textContent = name + " (" + marks[name].length + ")";
    });
  }

  function words(chosen) {
    var kept = chosen.protected.filter(Boolean).length;
    if (!chosen.possible) {
      return ["alpha " + alpha.value + " prunes " + chosen.count + " heads, but gamma " + gamma.value
        + " leaves " + chosen.left + " unprotected: lower one of them."];
    }
    var lines = [chosen.heads.length + " of " + total + " heads pruned, " + kept + " protected."];
    // Changes only: scoring has other prompts and another text than the values measured above.
    var bias = levelhead.predictBias(data.axes[axis.value].gaps, chosen.heads);
    if (bias) {
      lines.push("Predicted change of bias: " + signed(bias.change, 4) + ", "
        + share(bias.change, bias.base) + " of the gaps of the scoring prompts.");
    } else {
      lines.push("No prediction of bias: the scores have no effects on signed gaps.");
    }
    var ppl = levelhead.predictPerplexity(data.ppl, chosen.heads);
    lines.push("Predicted change of perplexity: " + share(ppl.change, ppl.base)
      + ", each head by itself; heads that go together usually cost more.");
    return lines;
  }
  function measured(chosen) {
    var key = chosen.heads.join();
    var name = data.axes[axis.value].name;
    var found = data.measured.filter(function (one) {
      return one.axis === name && one.heads.join() === key;
    });
    if (!chosen.heads.length) return "";
    if (!found.length) return "These heads together: not measured.";
    return "Measured for exactly these heads: " + found[0].text + ".";
  }
  function paragraphs(target, lines) {
    target.replaceChildren.apply(target, lines.map(function (line) {
      var one = document.createElement("p");
      one.textContent = line;
      return one;
    }));
  }
  function quoted(text) {
    return /^[\w.\/-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'";
  }

  function choose() {
    return levelhead.select(
      data.axes[axis.value].ranking, data.ppl.ranking, gamma.value, alpha.value);
  }
  function showLimit() {
    if (data.limit === null) return;
    var bias = data.axes[axis.value];
    var found = levelhead.within(bias.ranking, data.ppl, gamma.value, data.limit, data.dearer || 1);
    var share = Math.min(found.count / (total * Number(alpha.max)), 1);
    var name = fixed(100 * data.limit, 1) + "%";
    element("limit").hidden = element("within").hidden = false;
    element("limit").firstElementChild.style.width = fixed(100 * share, 2) + "%";
    element("within").textContent = "Marked below alpha: at this gamma, up to " + found.count
      + " heads (alpha " + fixed(found.count / total, 3) + ") keep perplexity within " + name + ", by summed effects"
      + (data.dearer ? " times " + fixed(data.dearer, 1) + ", as dear as the sets of this run that were measured."
        : " alone; no set of this run was measured, and sets mostly cost more.");
  }
  function oneHead(chosen) {
    var i = Number(layer.value), j = Number(head.value);
    var inside = layer.value !== "" && head.value !== "" && i >= 0 && i < data.layers
      && j >= 0 && j < data.heads && i % 1 === 0 && j % 1 === 0;
    element("one-head").textContent = inside
      ? numbersOf(chosen, i * data.heads + j).slice(1).join(", ")
      : "There is no such head.";
  }
  function update() {
    var chosen = choose(), bias = data.axes[axis.value], hovers = [];
    for (var i = 0; i < total; i++) hovers.push(numbersOf(chosen, i).join("<br>"));
    var protects = levelhead.headCount(gamma.value, total);
    element("gamma-value").textContent = gamma.value + " (" + protects + " heads)";
    element("alpha-value").textContent = alpha.value + " (" + chosen.count + " heads)";
    gamma.setAttribute("aria-valuetext", gamma.value + ", " + protects + " heads protected");
    alpha.setAttribute("aria-valuetext", alpha.value + ", " + chosen.count + " heads pruned");
    drawMap(maps.bias, bias, data.scales.bias, chosen, hovers);
    drawMap(maps.ppl, data.ppl, data.scales.ppl, chosen, hovers);
    element("title-bias-0").textContent = "Effect of each head on bias (z_bias), " + bias.name;
    paragraphs(element("prediction"), words(chosen));
    element("measured").textContent = measured(chosen);
    showLimit();
    element("chosen").textContent = chosen.heads.length
      ? "Layer.head: " + chosen.heads.map(pair).join(", ") : "No heads.";
    element("command").textContent = "To choose them in a run folder: levelhead select RUN --axis "
      + quoted(bias.name) + " --gamma " + gamma.value + " --alpha " + alpha.value;
    oneHead(chosen);
  }

  var waiting = false;
  function soon() {
    if (waiting) return;
    waiting = true;
    window.requestAnimationFrame(function () { waiting = false; update(); });
  }
  [gamma, alpha, axis, colour].forEach(function (control) {
    control.addEventListener("input", soon);
  });
  [layer, head].forEach(function (control) {
    control.addEventListener("input", function () { oneHead(choose()); });
  });
  element("reset").addEventListener("click", function () {
    gamma.value = data.gamma;
    alpha.value = data.alpha;
    axis.value = "0";
    colour.value = "effect";
    soon();
  });
  element("explorer").hidden = false;
  update();
})();
