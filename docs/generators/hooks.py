"""What MkDocs calls while it builds the site: pages and the picture that are made of the code are put in."""

import shutil
from typing import Any, Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.generators import commands, configuration, log_events, python_api
from docs.generators.picture import picture
from docs.generators.rooms import ROOT, package_folders, read_rooms

PICTURE_MARK = "<!-- picture of the rooms -->"
# Links to the rooms under their import names: mkdocstrings finds modules by their folders.
LINKS = ROOT / "build" / "packages"


def on_startup(command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Lay the links by which mkdocstrings finds the modules, anew."""
    shutil.rmtree(LINKS, ignore_errors=True)
    for package, folder in sorted(package_folders().items()):
        place = LINKS.joinpath(*package.split("."))
        if "." in package:
            place.symlink_to(folder)
        else:
            place.mkdir(parents=True)
            for file in folder.glob("*.py"):
                (place / file.name).symlink_to(file)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each package below the page of the Python package."""
    nav: list[dict[str, Any]] = config.nav or []
    reference = next(section["Reference"] for section in nav if "Reference" in section)
    pages = [
        {package.removeprefix("fedmedclip."): f"{python_api.FOLDER}/{package}.md"}
        for package in python_api.packages()
    ]
    reference.append({"Modules": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of the code."""
    pages = {
        commands.PAGE: commands.commands_page(),
        configuration.PAGE: configuration.configuration_page(),
        log_events.PAGE: log_events.log_events_page(),
        python_api.PAGE: python_api.python_page(),
        **python_api.module_pages(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the picture of the rooms where a page asks for it."""
    if PICTURE_MARK in markdown:
        markdown = markdown.replace(PICTURE_MARK, f'<div class="picture">{picture(read_rooms())}</div>')
    return markdown
