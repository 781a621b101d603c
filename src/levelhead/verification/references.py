"""Where the audit's facts belong in documentation that laws and frameworks ask for.

In plain words, from the EU AI Act (Regulation (EU) 2024/1689) and the NIST AI Risk Management
Framework 1.0 (NIST AI 100-1). Pointers for whoever writes that documentation, not legal advice:
whether a duty applies, and whether it is met, is theirs to find out. Each says what is missing.
"""

from __future__ import annotations

EU = "EU AI Act, Regulation (EU) 2024/1689"
NIST = "NIST AI RMF 1.0"
NOTE = (
    "Pointers for whoever writes the documentation. No statement of compliance, no legal advice: "
    "whether these apply to a system, and whether they are met, this file does not say."
)
REFERENCES: tuple[dict[str, str], ...] = (
    {
        "source": EU,
        "reference": "Article 10(2)(f) and (g)",
        "asks_for": "high-risk systems: an examination of training, validation and testing data "
        "for possible biases, and measures to detect, prevent and mitigate them",
        "here": "axes, checks: what the model writes about groups, measured",
        "missing": "the data themselves are not examined",
    },
    {
        "source": EU,
        "reference": "Article 11(1) with Annex IV, point 2(a)",
        "asks_for": "high-risk systems: how the system was developed, pre-trained models that were "
        "used among it, and how they were modified",
        "here": "subject.removed_heads, subject.objective, base",
        "missing": "everything else about the system and its development",
    },
    {
        "source": EU,
        "reference": "Article 11(1) with Annex IV, point 2(g)",
        "asks_for": "high-risk systems: testing procedures, the test data's main characteristics, "
        "metrics of potentially discriminatory impacts; test logs and reports, dated and signed by "
        "the responsible persons",
        "here": "measured_with, axes, checks, policy, versions, created",
        "missing": "a responsible person's signature; impacts that toxicity scores do not show",
    },
    {
        "source": EU,
        "reference": "Article 11(1) with Annex IV, points 3 and 4",
        "asks_for": "high-risk systems: capabilities and limitations, accuracy for the groups of "
        "persons the system is meant for, and why the metrics are appropriate",
        "here": "limits; axes.AXIS.candidate.gaps by subgroup",
        "missing": "accuracy in the system's own task, and the reasons for its metrics",
    },
    {
        "source": EU,
        "reference": "Article 15(1) and (3)",
        "asks_for": "high-risk systems: appropriate accuracy and robustness through the "
        "lifecycle, and accuracy metrics declared in the instructions for use",
        "here": "perplexity and its change against the base",
        "missing": "perplexity is not accuracy in a task; robustness and security are not measured",
    },
    {
        "source": EU,
        "reference": "Article 53(1)(a) with Annex XI",
        "asks_for": "providers of general-purpose AI models: technical documentation that covers "
        "the testing process and the results of the model's evaluation",
        "here": "the whole file, as one of the evaluations",
        "missing": "whether someone who modifies a model is its provider depends on the change; "
        "the base model's documentation still holds",
    },
    {
        "source": NIST,
        "reference": "MAP 2.2, MAP 2.3",
        "asks_for": "the system's knowledge limits, and considerations of test design, data "
        "selection and construct validation, documented",
        "here": "limits, measured_with, axes.AXIS.prompts_sha256",
        "missing": "the context of use, and who is affected by it (MAP 1)",
    },
    {
        "source": NIST,
        "reference": "MEASURE 2.1",
        "asks_for": "test sets, metrics and tools of an evaluation, documented",
        "here": "measured_with, axes, versions",
        "missing": "",
    },
    {
        "source": NIST,
        "reference": "MEASURE 2.11",
        "asks_for": "fairness and bias, as identified in MAP, evaluated and documented",
        "here": "axes, checks, error_rate, verdict",
        "missing": "harms that are no difference in toxicity, and groups that no axis names",
    },
    {
        "source": NIST,
        "reference": "MANAGE 1.1",
        "asks_for": "a decision whether the system achieves its purposes and whether its "
        "development or deployment should proceed",
        "here": "verdict and policy, as one input of that decision",
        "missing": "the decision, and who takes it",
    },
    {
        "source": NIST,
        "reference": "MANAGE 4.1",
        "asks_for": "monitoring after deployment",
        "here": "the same policy can be run again on every release",
        "missing": "observation of the system in use",
    },
)

LIMITS = (
    "Toxicity is what the scorer says. Scorers make mistakes, and some react to identity words.",
    "English prompts of a few templates, continued by sampling; nothing about other languages, "
    "uses, or prompts that differ in kind.",
    "A gap is a difference of mean toxicity between the groups that the axis names. Stereotypes, "
    "refusals, quality of service, and groups that are not named are not measured.",
    "Passed means: no growth beyond the policy's limits was shown, or growth was excluded, at the "
    "stated confidence. It does not mean that the model is without bias.",
    "Intervals take templates as random and the list of descriptors as given.",
)
