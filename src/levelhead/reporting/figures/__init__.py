"""The plots as plotly figures: plain data and layout, drawn by the page's script.

Plain dictionaries rather than plotly's classes: these take a second to import. The tests check
the dictionaries against plotly's schema. Text and line colours that must follow light and dark
mode are set by the page's style sheet; the colours here are legible on both.
"""
