"""The configuration of the documentation site: `make docs` builds it."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ttl"
release = importlib.metadata.version("ttl-core")
language = "en"
smartquotes = False  # quotes are those of code, in many places
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_ext", "examples", "pictures"]

# an error, in strict builds, is every reference that leads nowhere
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!ttl_core\.\w+$).*")]  # types that are not public names

myst_heading_anchors = 3  # as on GitHub

default_role = "code"  # docstrings have `names` in single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
toc_object_entries = False  # headings are enough
python_maximum_signature_line_length = 72
napoleon_use_ivar = True  # attributes as a list, like arguments
napoleon_use_rtype = False

html_theme = "furo"
html_title = "ttl"
pygments_dark_style = "a11y-high-contrast-dark"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_use_index = False  # the search is there
html_domain_indices = False
html_show_sourcelink = False
