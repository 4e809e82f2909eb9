"""The console's operations pages: rates, quality, releases, learning, dead letters, policies, lists, the audit log.
`routes(app)` adds them all, and what they stand on while the application runs.

scales, chart_parts, charts, row_charts     figures as SVG: pure
rates, scraping                             Prometheus pages to half an hour of figures
release_book, keyed_book, letter_book       topics in memory; shelf follows them all by threads
*_view                                      what pages show: pure
live, quality, releases, letters, ...       handlers; frame is what they share
"""

from streams.console.ops.routing import routes

__all__ = ["routes"]
