"""The tables and figures of the papers, measured again: what they say, what tffl finds, verdicts.

    configs/<paper>/*.toml  →  benchmark runs  →  results/<paper>/<scale>/*.csv  →  README.md

`plan` reads the files, `measure` runs what is missing and records it, `claims` judges, `page` and
`pictures` show, `cost` says how long it takes. Nothing on a page is typed.
"""
