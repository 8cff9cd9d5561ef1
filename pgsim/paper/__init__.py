"""The paper's tables and figures beside what the project's own runs reached (Zhang et al., ICLR 2020).

claims: what the paper states --.
                                 +-- tables: a row of the paper, and below it every run of that row
stored: traces, result files ---'
"""
