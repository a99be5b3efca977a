"""Reports: results as Markdown and as one HTML file, with plots."""
