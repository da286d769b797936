"""From a large relevance model to a small one."""
