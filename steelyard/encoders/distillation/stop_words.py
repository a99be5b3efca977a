"""English function words: articles, pronouns, prepositions, auxiliaries, conjunctions."""

from __future__ import annotations

_WORDS = """
a an the this that these those
i me my mine we us our ours you your yours he him his she her hers it its they them their
theirs who whom whose which what itself themselves
and or but nor so yet if then than because while whereas although though unless until since
of in on at by for with from to into onto upon about against between among through during
before after above below over under within without across toward towards via per as
is am are was were be been being do does did doing done have has had having can could may
might must shall should will would
not no nor only also both either neither each every any all some such same other another
more most less least few many much several
there here when where why how again further once just very too still even however thus
therefore hence
"""

ENGLISH = frozenset(_WORDS.split())
