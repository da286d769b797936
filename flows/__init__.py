"""Prefect flows: when and where serm's verbs run."""
