"""What a sweep found: statistics, tables, figures, one page."""
