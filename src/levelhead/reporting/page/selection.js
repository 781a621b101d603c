// FASP's rule as levelhead.selection.rules has it, and sums of effects. No page, no drawing.
var levelhead = (function () {
  "use strict";

  // floor(share * number) for a share written as a decimal, in whole numbers: 0.29 of 100 is 29.
  function headCount(share, number) {
    var parts = String(share).split(".");
    var decimals = parts[1] || "";
    var scaled = BigInt(parts[0] + decimals) * BigInt(number);
    return Number(scaled / BigInt("1" + "0".repeat(decimals.length)));
  }

  // Those with the smallest z_ppl; one equal to the last unprotected head is not protected either.
  function protectedHeads(ranking, gamma) {
    var count = headCount(gamma, ranking.length);
    if (count >= ranking.length) return ranking.map(function () { return true; });
    var sorted = ranking.slice().sort(function (a, b) { return a - b; });
    return ranking.map(function (z) { return z < sorted[count]; });
  }

  // {heads, protected, count, left, possible}: flat indices of heads, sorted; a flag per head; how
  // many alpha asks for and how many gamma leaves. Not possible: more than are left.
  function select(bias, ppl, gamma, alpha) {
    var safe = protectedHeads(ppl, gamma);
    var count = headCount(alpha, bias.length);
    var left = bias.length - headCount(gamma, bias.length);
    var possible = count <= left;
    var open = [];
    for (var i = 0; i < bias.length; i++) if (!safe[i]) open.push(i);
    // Largest first; of equals the smaller (layer, head), which is the smaller flat index.
    open.sort(function (a, b) { return bias[b] - bias[a] || a - b; });
    var heads = possible ? open.slice(0, count).sort(function (a, b) { return a - b; }) : [];
    return { heads: heads, protected: safe, count: count, left: left, possible: possible };
  }

  function sum(values, heads) {
    return heads.reduce(function (total, head) { return total + values[head]; }, 0);
  }

  // {base, change}: the sum of the sizes of the gaps, and by how much it changes when the effects
  // of these heads (with minus without) are taken out of every gap. null without gaps.
  function predictBias(gaps, heads) {
    if (!gaps) return null;
    var base = 0, without = 0;
    gaps.forEach(function (one) {
      base += Math.abs(one.gap);
      without += Math.abs(one.gap - sum(one.effect, heads));
    });
    return { base: base, change: without - base };
  }

  // The change of perplexity: minus the sum of z_ppl (with minus without).
  function predictPerplexity(ppl, heads) {
    return { base: ppl.base, change: -sum(ppl.effect, heads) };
  }

  // {count, all}: how many heads alpha may ask for at this gamma so that every smaller number keeps
  // the limit too: summed effects as a share of perplexity, times how much dearer sets are.
  function within(bias, ppl, gamma, limit, dearer) {
    var open = bias.length - headCount(gamma, bias.length);
    var ranked = select(bias, ppl.ranking, gamma, "0").protected
      .map(function (safe, i) { return safe ? -1 : i; })
      .filter(function (i) { return i >= 0; })
      .sort(function (a, b) { return bias[b] - bias[a] || a - b; })
      .slice(0, Math.max(open, 0));
    var price = 0;
    for (var i = 0; i < ranked.length; i++) {
      price -= ppl.effect[ranked[i]] / ppl.base;
      if (price * dearer > limit) return { count: i, all: false };
    }
    return { count: ranked.length, all: true };
  }

  return {
    within: within,
    headCount: headCount,
    select: select,
    predictBias: predictBias,
    predictPerplexity: predictPerplexity
  };
})();
