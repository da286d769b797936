"""serm: a search-relevance model that keeps itself current."""
