"""One manner for every command line.

What is unknown names the nearest known word, in one line and with status 2; common other names are answered with ours;
defaults stand in brackets; what people use first is shown by `--help`, the rest by `--help-all`.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from spe_dist import __version__
from spe_dist.cli.options.other_names import our_name
from spe_dist.errors import ConfigError
from spe_dist.utils.wording import how_many, nearest, nearest_or_all

HELP = ("-h", "--help")
HELP_ALL = ("--help-all", "--help_all")
WIDTH = 120  # characters of a line around the options


class Parser(argparse.ArgumentParser):
    """The parser of one command.

    Args:
        program: the command as it is typed, such as "spe score".
        usage: what follows it.
        doc: a docstring; its first paragraph stands above the options, the rest below them. Lines that are longer than
            `WIDTH` are wrapped.
        more: further arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, program: str, usage: str, doc: str | None, **more: Any) -> None:
        lines = inspect.cleandoc(doc or "").splitlines()
        text = "\n".join(textwrap.fill(line, WIDTH) if len(line) > WIDTH else line for line in lines)
        summary, _, details = text.partition("\n\n")
        super().__init__(
            prog=program,
            usage=f"{program} {usage}",
            description=summary,
            epilog=details,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            add_help=False,
            **more,
        )
        self._less_used: set[argparse.Action] = set()
        self._may_be_empty: set[argparse.Action] = set()
        self._shows_all = False
        self.add_argument(*HELP, action=_Help, help="show this help")
        self.less_used(self.add_argument(*HELP_ALL, action=_Help, help="show all options"))
        self.less_used(self.add_argument("--version", action="version", version=f"spe-dist {__version__}"))

    def less_used(self, *actions: argparse.Action) -> None:
        """Leave these options to `--help-all`."""
        self._less_used.update(actions)

    def may_be_empty(self, *actions: argparse.Action) -> None:
        """Take an empty value of these options, such as that of a list without elements."""
        self._may_be_empty.update(actions)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parsed arguments; options may stand before, behind and between positional ones.

        Raises:
            ConfigError: for what is unknown, missing or wrong.
        """
        words = list(argv)
        for word in words[: words.index("--")] if "--" in words else words:
            if word.startswith("--"):
                self._refuse_unknown(word.partition("=")[0])
        self._refuse_empty(words)
        namespace, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            raise ConfigError(f"unexpected argument {unknown[0]!r}; {self.prog} --help explains what it takes")
        return namespace

    def _refuse_unknown(self, option: str) -> None:
        if option in self._option_string_actions:
            return
        ours = our_name(option, self._option_string_actions, self._positional_names())
        if ours is not None and ours.startswith("--"):
            raise ConfigError(f"{option} is called {ours} here")
        if ours is not None:
            raise ConfigError(f"{option} is {ours} here, which has no name before it: {self.usage}")
        near = nearest(option, [known for known in self._option_string_actions if known.startswith("--")])
        raise ConfigError(f"unknown option {option!r}{near or f'; {self.prog} --help-all lists all'}")

    def _refuse_empty(self, words: Sequence[str]) -> None:
        """An empty word is a shell's variable that is not set; as a path it would be the current folder."""
        for before, word in zip(["", *words], words, strict=False):
            name, sign, value = (before, "=", "") if not word else word.partition("=")
            action = self._option_string_actions.get(name)
            if sign and not value and action is not None and action not in self._may_be_empty:
                raise ConfigError(f"{name} is empty; give a value, or leave the option out")
            if not word and action is None:
                raise ConfigError("an argument is empty, as of a shell variable that is not set; give a value")

    def _positional_names(self) -> list[str]:
        return [str(a.metavar or a.dest) for a in self._actions if not a.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError, which every command ends with in one line."""
        raise ConfigError(message.removeprefix("argument "))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = list(action.choices)
            suggestion = nearest(value, choices) or f"; choose one of {', '.join(map(str, choices))}"
            raise argparse.ArgumentError(action, f"unknown choice {value!r}{suggestion}")

    def format_help(self) -> str:
        """The help: all options after `--help-all`, else those that people use first."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        hidden = 0
        for group in self._action_groups:
            visible = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
            shown = [action for action in visible if self._shows_all or action not in self._less_used]
            hidden += len(visible) - len(shown)
            if shown:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(shown)
                formatter.end_section()
        own = 2  # --help-all and --version
        if hidden > own:
            formatter.add_text(f"{how_many(hidden - own, 'more option')}: {self.prog} --help-all")
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def print_all_help(self) -> None:
        """Print the help with all options."""
        self._shows_all = True
        self.print_help()


class _Help(argparse.Action):
    """`--help`, or `--help-all`: print it and end."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: object, option: Any = None) -> None:
        assert isinstance(parser, Parser)
        if option in HELP_ALL:
            parser.print_all_help()
        else:
            parser.print_help()
        parser.exit()


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help texts end with the default in brackets; where the text has brackets of its own they stand for it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        has_none = default in (None, argparse.SUPPRESS, [], (), "") or isinstance(default, bool)
        if text.endswith("]") or has_none or not action.option_strings:
            return text
        return f"{text} [{default:g}]" if isinstance(default, float) else f"{text} [%(default)s]"


def choose_command(program: str, argv: Sequence[str], commands: Sequence[str], help_text: str) -> str | None:
    """The command that an argument list begins with; None where help or the version was asked for and printed.

    Args:
        program: what is typed before it, such as "spe shards".
        argv: its arguments.
        commands: the names that are known.
        help_text: what `--help` prints.

    Raises:
        ConfigError: for an unknown command, and where there is none.
    """
    name = argv[0] if argv else ""
    if name in (*HELP, *HELP_ALL):
        print(help_text)
    elif name == "--version":
        print(f"spe-dist {__version__}")
    elif name in commands:
        return name
    elif not name:
        raise ConfigError(f"{program} needs a command: {', '.join(commands)}; {program} --help explains them")
    else:
        raise ConfigError(f"unknown command {name!r}{nearest_or_all(name, commands)} ({program} --help explains them)")
    return None


def help_on_commands(program: str, doc: str, commands: dict[str, str]) -> str:
    """What `--help` prints for a program with commands, of which `commands` has a phrase each."""
    summary, _, details = doc.strip().partition("\n\n")
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {what}" for name, what in commands.items()]
    parts = [f"usage: {program} COMMAND ...", summary, "\n".join(lines), details]
    parts.append(f"{program} COMMAND --help explains one of them.")
    return "\n\n".join(part for part in parts if part)


def split_settings(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own options, and what follows `--`: settings that it hands on."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]
