"""People judge what the annotators could not agree on: a queue, a local web page, and doors to other labelling tools.

Verbs: `serm.review.queue.review_queue`, `serm.review.server.review`, `serm.review.exchange.export_queue` and
`import_decisions`.
"""
