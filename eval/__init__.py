"""Tasks, budgets, baselines and reports: does construction work, and what does it cost?

This package has the name of a builtin: write `from eval.report import render_report`, never `import eval`.
"""
