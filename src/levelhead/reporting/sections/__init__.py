"""What the report says about each file of a run: a function per section.

Each takes the content of a file, of which anything may be missing, and gives a `Section`, or None
where there is nothing to say.
"""

from levelhead.reporting.sections.agree import agree
from levelhead.reporting.sections.attempts import attempts
from levelhead.reporting.sections.averaged import averaged
from levelhead.reporting.sections.axes import axes
from levelhead.reporting.sections.compare import compare
from levelhead.reporting.sections.glance import glance
from levelhead.reporting.sections.heads import head_map, pruned_heads
from levelhead.reporting.sections.interactions import interactions
from levelhead.reporting.sections.next_steps import next_steps
from levelhead.reporting.sections.reading import reading
from levelhead.reporting.sections.reproduce import reproduce
from levelhead.reporting.sections.rests_on import rests_on
from levelhead.reporting.sections.results import results
from levelhead.reporting.sections.search import search
from levelhead.reporting.sections.texts import side_by_side
from levelhead.reporting.sections.transfer import transfer
from levelhead.reporting.sections.units import pruned_units

__all__ = [
    "agree",
    "attempts",
    "averaged",
    "axes",
    "compare",
    "glance",
    "head_map",
    "interactions",
    "next_steps",
    "pruned_heads",
    "pruned_units",
    "reading",
    "reproduce",
    "rests_on",
    "results",
    "search",
    "side_by_side",
    "transfer",
]
