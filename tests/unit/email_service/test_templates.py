"""The catalogue of templates: what ships, what is refused, and data that mean harm."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.email.adapters.templates import DIRECTORY, Rendered, Site, TemplateCatalogue
from services.kit.errors import PermanentError, SettingsError
from tests.unit.email_service.own_templates import HTML as OWN_HTML
from tests.unit.email_service.own_templates import write_own

SITE = Site(
    crm_url="https://crm.example.com/", portal_url="https://portal.example.com", support_address="help@example.com"
)
CATALOGUE = TemplateCatalogue.load(DIRECTORY, SITE)

CODE: dict[str, object] = {"name": "Ada", "token": "012345", "expiresInMinutes": 10}
WELCOME: dict[str, object] = {"name": "Ada", "isClient": False}
RESET: dict[str, object] = {"name": "Ada", "resetToken": "a b/c&d=e+f", "expiresInHours": 24}


class Seen(HTMLParser):
    """The visible text, elements and links of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.links: list[str] = []
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("style", "title"):
            self._hidden += 1
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "title"):
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


def refused(template_id: str, data: dict[str, Any], subject: str | None = None) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        CATALOGUE.render(template_id, data, subject=subject)
    return caught.value


# --- what ships ----------------------------------------------------------------------------------------------------


def test_the_three_templates_of_the_old_integration_ship() -> None:
    assert [t.template_id for t in CATALOGUE.list()] == ["2fa-code", "password-reset", "welcome"]
    assert set(CATALOGUE.get("2fa-code").data) == {"name", "token", "expiresInMinutes"}
    assert set(CATALOGUE.get("welcome").data) == {"name", "isClient"}
    assert set(CATALOGUE.get("password-reset").data) == {"name", "resetToken", "expiresInHours"}


@pytest.mark.parametrize(("template_id", "data"), [("2fa-code", CODE), ("welcome", WELCOME), ("password-reset", RESET)])
def test_html_and_text_say_the_same(template_id: str, data: dict[str, object]) -> None:
    rendered = CATALOGUE.render(template_id, data)
    seen = Seen(rendered.html)
    assert rendered.subject
    assert f"<title>{rendered.subject}</title>" in rendered.html
    for part in (seen.text, rendered.text):
        assert "Ada" in part
        assert "DepLLC CRM" in part
        assert "help@example.com" in part
    assert not {"img", "script", "link", "iframe"} & seen.tags
    assert len(rendered.html.encode()) < 100_000, "Gmail cuts a mail off at 102 kB"
    assert not re.search(
        r"\{\{|\{%|\[\[|\[%|mailroom(expression|statement)|\bNone\b|Undefined", rendered.html + rendered.text
    )
    assert not re.search(r"\n\n\n|[ \t]\n", rendered.text)
    assert rendered.text.endswith("\n")


def test_the_code_keeps_its_zeros_and_stays_out_of_subject_and_preheader() -> None:
    rendered = CATALOGUE.render("2fa-code", CODE)
    assert "012345" in rendered.text
    assert rendered.html.count("012345") == 1
    assert "012345" not in rendered.subject
    assert "10 minutes" in rendered.text
    assert "1 minute." in CATALOGUE.render("2fa-code", {**CODE, "expiresInMinutes": 1}).text


def test_the_reset_link_carries_the_token_encoded_and_is_not_tracked() -> None:
    rendered = CATALOGUE.render("password-reset", RESET)
    link = "https://crm.example.com/reset-password?token=a%20b/c%26d%3De%2Bf"
    assert link in rendered.text
    assert Seen(rendered.html).links.count(link) == 2
    assert rendered.html.count("ses:no-track") == 2


def test_a_client_is_welcomed_to_the_portal_and_a_colleague_to_the_crm() -> None:
    client = CATALOGUE.render("welcome", {**WELCOME, "isClient": True})
    colleague = CATALOGUE.render("welcome", WELCOME)
    assert "https://portal.example.com" in Seen(client.html).links
    assert "https://portal.example.com" in client.text
    assert client.subject == "Welcome to DepLLC CRM Client Portal"
    assert "https://crm.example.com" in Seen(colleague.html).links
    assert "portal" not in (colleague.html + colleague.text + colleague.subject).lower()


def test_css_is_inlined_and_dark_mode_kept() -> None:
    html = CATALOGUE.render("2fa-code", CODE).html
    assert re.search(r'<h1 class="title" style="[^"]*color: #1b2330', html)
    assert html.count("<style") == 2, "only the media queries' and Outlook's"
    assert "prefers-color-scheme: dark" in html
    assert '<meta name="color-scheme" content="light dark">' in html


def test_a_preview_needs_nothing_and_takes_what_it_is_given() -> None:
    assert "Ada Lovelace" in CATALOGUE.preview("welcome").text
    assert "Grace" in CATALOGUE.preview("welcome", {"name": "Grace"}).text


def test_the_callers_subject_is_taken_as_it_is_and_never_as_a_template() -> None:
    rendered = CATALOGUE.render("2fa-code", CODE, subject="{{ token }} <b>")
    assert rendered.subject == "{{ token }} <b>"
    assert "<title>{{ token }} &lt;b&gt;</title>" in rendered.html


# --- what is refused -------------------------------------------------------------------------------------------------


def test_all_that_is_missing_or_wrong_is_told_at_once_without_values() -> None:
    error = refused("2fa-code", {"token": 482913, "expiresInMinutes": "soon"})
    assert error.reason == "renderingFailed"
    assert error.detail == ("template 2fa-code: token must be text; expiresInMinutes must be a whole number")


def test_an_unknown_template_is_invalid_and_the_known_ones_are_named() -> None:
    error = refused("2fa_code", CODE)
    assert error.reason == "invalid"
    assert "2fa-code, password-reset, welcome" in error.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", None),
        ("token", ""),
        ("token", "\r\n\t"),
        ("name", "x" * 121),
        ("name", "x" * 10_000_000),
        ("name", ["Ada"]),
        ("name", {"__class__": "x"}),
        ("name", True),
        ("name", "half \ud83d"),
        ("token", 12345),
        ("expiresInMinutes", 10.0),
        ("expiresInMinutes", True),
        ("expiresInMinutes", 0),
        ("expiresInMinutes", 10**400),
        ("expiresInMinutes", "10"),
    ],
)
def test_a_value_of_the_wrong_kind_or_size_is_refused(name: str, value: object) -> None:
    error = refused("2fa-code", {**CODE, name: value})
    assert error.reason == "renderingFailed"
    assert error.detail.startswith(f"template 2fa-code: {name} ")
    assert len(error.detail) < 200


@pytest.mark.parametrize("value", ["true", 1, 0, None])
def test_a_flag_is_true_or_false_and_nothing_else(value: object) -> None:
    assert refused("welcome", {**WELCOME, "isClient": value}).reason == "renderingFailed"


@pytest.mark.parametrize(
    "subject", ["", "\na", "a\n", "half \ud83d", "a\r\nBcc: eve@example.com", "a\nb", "a\x00b", "a\u2028b", "x" * 201]
)
def test_a_subject_that_is_not_one_line_is_invalid(subject: str) -> None:
    assert refused("2fa-code", CODE, subject=subject).reason == "invalid"


def test_problems_lists_each_field_for_an_answer() -> None:
    problems = CATALOGUE.problems("2fa-code", {"name": "Ada"}, category="marketing")
    assert [p.field for p in problems] == ["templateData.token", "templateData.expiresInMinutes", "category"]
    assert CATALOGUE.problems("2fa-code", CODE, category="auth") == ()


# --- data that mean harm ---------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self._TemplateReference__context }}",
    "</bdi></p></td></table><h1>",
    "mailroomexpression0x <!--mailroomstatement0x-->",
    "[[ name ]] [% block x %]",
    "&lt;b&gt; &amp;",
]


def structure(rendered: Rendered) -> str:
    return "".join(re.findall(r"</?[a-z0-9]+", rendered.html))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_html_and_template_code_in_data_stay_text(hostile: str) -> None:
    rendered = CATALOGUE.render("welcome", {**WELCOME, "name": hostile})
    assert structure(rendered) == structure(CATALOGUE.render("welcome", WELCOME))
    assert hostile in Seen(rendered.html).text
    assert hostile in rendered.text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=120))
def test_any_name_renders_as_one_line(name: str) -> None:
    rendered = CATALOGUE.render("welcome", {**WELCOME, "name": name})
    (greeting,) = [line for line in rendered.text.split("\n") if line.startswith("Hello")]
    assert greeting.endswith(",")
    nobody = greeting == "Hello,"
    assert structure(rendered) == structure(CATALOGUE.render("welcome", {**WELCOME, "name": None if nobody else "Ada"}))


@pytest.mark.parametrize(
    "nobody", [{}, {"name": None}, {"name": ""}, {"name": " \r\n"}, {"name": "\u200b\u2060"}, {"name": "\u3164\ufe0f"}]
)
@pytest.mark.parametrize(("template_id", "data"), [("2fa-code", CODE), ("welcome", WELCOME), ("password-reset", RESET)])
def test_without_a_name_nobody_is_named(template_id: str, data: dict[str, object], nobody: dict[str, object]) -> None:
    rest = {name: value for name, value in data.items() if name != "name"}
    rendered = CATALOGUE.render(template_id, {**rest, **nobody})
    assert "\nHello,\n" in rendered.text
    assert "Hello," in Seen(rendered.html).text
    assert CATALOGUE.problems(template_id, {**rest, **nobody}) == ()


LINKS = [
    "Booking.com",
    "Win 500 € at http://evil.example/x?y=z",
    "www.evil.example",
    "eve@evil.example",
    "mailto:eve@evil.example",
    "http://localhost/x",
    "evil\u3002com",
    "\U0001f600.ws",
    "tel:+4930123456",
    "J.R.R. Tolkien",
]


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize(("template_id", "data"), [("2fa-code", CODE), ("welcome", WELCOME), ("password-reset", RESET)])
def test_a_name_that_looks_like_a_link_is_kept_and_is_none(
    template_id: str, data: dict[str, object], name: str
) -> None:
    """As programs look for one: a scheme, an address, or a host whose last label is a word of letters."""
    rendered = CATALOGUE.render(template_id, {**data, "name": name})
    for shown in (Seen(rendered.html).text, rendered.text):
        (greeting,) = re.findall(r"Hello (.*),\n", shown)
        assert greeting.replace("\u200c", "") == name
        assert not re.search(r"\w:(//|\+|\w)|\S@\w|\S[.\u3002]\w", greeting)
    assert Seen(rendered.html).links == Seen(CATALOGUE.render(template_id, data).html).links


def test_a_code_with_dots_is_left_alone() -> None:
    assert "482.913" in CATALOGUE.render("2fa-code", {**CODE, "token": "482.913"}).text


def test_a_line_break_in_a_name_adds_no_line() -> None:
    rendered = CATALOGUE.render("welcome", {**WELCOME, "name": "Ada\r\n\r\nPay here: evil\u2028x"})
    assert "Hello Ada Pay here: evil x,\n" in rendered.text


def test_data_that_no_manifest_declares_never_reach_a_template() -> None:
    extra = {"productName": "Evil", "crmUrl": "https://evil.example", "self": 1, "x": [[[[]]]]}
    assert CATALOGUE.render("welcome", {**WELCOME, **extra}) == CATALOGUE.render("welcome", WELCOME)


# --- templates of one's own ------------------------------------------------------------------------------------------

MANIFEST: dict[str, Any] = {
    "templateId": "own",
    "version": 3,
    "description": "A template of a test.",
    "categories": ["system"],
    "subject": "About {{ thing.title }}",
    "data": {"thing": {"type": "object"}, "lines": {"type": "array"}},
    "sample": {"thing": {"title": "tea"}, "lines": [{"price": 1}]},
}
HTML = """<!DOCTYPE html><html><head><title>{{ subject }}</title><style>td { color: #111111 }</style></head><body>
<table>{% for line in lines %}<tr><td>{{ line.price }}</td></tr>{% endfor %}</table><a href="{{ crmUrl }}">x</a>
</body></html>"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    write(tmp_path, MANIFEST, HTML, "{{ thing.title }}: {{ lines|length }}")
    return tmp_path


def write(directory: Path, manifest: dict[str, Any], html: str, text: str) -> None:
    (directory / "own/manifest.json").write_text(json.dumps(manifest))
    (directory / "own/mail.html").write_text(html)
    (directory / "own/mail.txt").write_text(text)


def test_a_loop_over_rows_survives_inlining(own: Path) -> None:
    rendered = TemplateCatalogue.load(own, SITE).render(
        "own", {"thing": {"title": "tea"}, "lines": [{"price": 1}, {"price": 2}]}
    )
    assert rendered.html.count("<td style=") == 2
    assert 'href="https://crm.example.com"' in rendered.html
    assert (rendered.subject, rendered.text) == ("About tea", "tea: 2\n")


def test_the_version_changes_with_the_content_and_with_nothing_else(own: Path) -> None:
    first = TemplateCatalogue.load(own, SITE).get("own").version
    assert TemplateCatalogue.load(own, Site(crm_url="http://other.example")).get("own").version == first
    assert first.startswith("3-")
    write(own, MANIFEST, HTML.replace("#111111", "#222222"), "{{ thing.title }}: {{ lines|length }}")
    assert TemplateCatalogue.load(own, SITE).get("own").version != first


def nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"lines": nested(9)}, "lines must be nested at most 8 deep"),
        ({"lines": nested(100_000)}, "lines must be nested at most 8 deep"),
        ({"lines": [1] * 5001}, "lines must hold at most 5000 values"),
        ({"lines": {"a": 1}}, "lines must be an array"),
        ({"thing": {"title": object()}}, "thing must hold JSON values only"),
        ({"thing": {"title": "x" * 20_001}}, "thing must hold valid Unicode texts of at most 20000 characters"),
        ({"thing": {1: "x"}}, "thing must have text as keys"),
        ({"thing": {}}, "'dict object' has no attribute 'title'"),
        ({"lines": [3]}, "'int object' has no attribute 'price'"),
    ],
)
def test_nested_data_are_bounded_and_gaps_in_them_are_told(own: Path, data: dict[str, Any], told: str) -> None:
    with pytest.raises(PermanentError) as caught:
        TemplateCatalogue.load(own, SITE).preview("own", data)
    assert caught.value.reason == "renderingFailed"
    assert caught.value.detail == f"template own: {told}"


@pytest.mark.parametrize(
    "expression",
    [
        "thing.__class__",
        "thing['__class__']",
        "thing|attr('__class__')",
        "thing.keys.__func__",
        "thing.update({'a': 1})",
    ],
)
def test_the_sandbox_holds_even_for_a_careless_template(own: Path, expression: str) -> None:
    write(own, MANIFEST, HTML, "{{ " + expression + " }}")
    with pytest.raises(SettingsError, match="own"):
        TemplateCatalogue.load(own, SITE)


def test_an_output_without_end_is_cut_off(own: Path) -> None:
    text = "{% for a in lines %}{% for b in lines %}{{ thing.title }}{% endfor %}{% endfor %}"
    write(own, MANIFEST, HTML, text)
    with pytest.raises(PermanentError, match="writes more than 1000000 characters"):
        TemplateCatalogue.load(own, SITE).preview("own", {"lines": [{"price": 1}] * 1000})


@pytest.mark.parametrize(
    ("manifest", "html", "text", "told"),
    [
        (MANIFEST, HTML, "{{ nobody }}", "own, mail.txt: not declared in the manifest's data: nobody"),
        (MANIFEST, HTML, "{% if %}", "own, mail.txt"),
        (MANIFEST, "[% extends 'nowhere.html' %]", "x", "nowhere.html"),
        (MANIFEST, "<title>{% if lines %}a{% endif %}</title>", "x", "where HTML lets nothing stand"),
        ({**MANIFEST, "templateId": "other"}, HTML, "x", "must be the folder's name"),
        ({**MANIFEST, "categories": ["spam"]}, HTML, "x", "categories"),
        ({**MANIFEST, "surprise": 1}, HTML, "x", "surprise"),
        ({**MANIFEST, "sample": {}}, HTML, "x", "thing is missing; lines is missing"),
    ],
)
def test_a_broken_template_stops_the_start_and_says_why(
    own: Path, manifest: dict[str, Any], html: str, text: str, told: str
) -> None:
    write(own, manifest, html, text)
    with pytest.raises(SettingsError) as caught:
        TemplateCatalogue.load(own, SITE)
    assert told in str(caught.value)


def test_an_empty_directory_and_a_bad_url_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        TemplateCatalogue.load(tmp_path, SITE)
    for url in ("javascript:alert(1)", "crm.example.com", "https://crm.example.com/?a=b"):
        with pytest.raises(SettingsError):
            Site(crm_url=url)


# --- beside those that ship ------------------------------------------------------------------------------------------

SHIP = {"2fa-code", "password-reset", "welcome"}


def beside(directory: Path) -> TemplateCatalogue:
    return TemplateCatalogue.load(DIRECTORY, SITE, directory)


def test_ones_own_templates_use_the_layout_that_ships_or_bring_their_own(tmp_path: Path) -> None:
    write_own(tmp_path, "receipt")
    (tmp_path / ".git").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "README.md").write_text("about these")
    catalogue = beside(tmp_path)
    assert {each.template_id: each.own for each in catalogue.list()} == {**dict.fromkeys(SHIP, False), "receipt": True}
    assert catalogue.broken == {}
    html = catalogue.preview("receipt").html
    assert "help@example.com" in html, "the footer of the layout that ships"
    assert re.search(r'<p class="text" style="[^"]+">Thanks, Ada', html)
    (tmp_path / "layout.html").write_text("<html><body><b>ours</b>[% block content %][% endblock %]</body></html>")
    ours = beside(tmp_path)
    assert "<b>ours</b>" in ours.preview("receipt").html
    assert ours.get("receipt").version != catalogue.get("receipt").version
    assert ours.get("welcome").version == CATALOGUE.get("welcome").version, "those that ship stay as they are"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ({"text": "{{ nobody }}"}, ["mail.txt: not declared in the manifest's data: nobody"]),
        ({"html": None, "text": None}, ["bad/mail.html: ", "bad/mail.txt: "]),
        ({"categories": ["spam"], "version": 0, "html": "[% if %]", "text": "[% endif %]"},
         ["categories", "version", "bad/mail.html: ", "bad/mail.txt: "]),
        ({"html": "{% if %}", "text": "{{ nobody }}", "subject": "{{ }}"}, ["mail.html", "nobody", "subject"]),
        ({"html": "[% include 'bad/mail.html' %]"}, ["bad/mail.html includes itself"]),
        ({"html": "[[ ''.__class__.__mro__ ]]"}, ["bad/mail.html: "]),
        ({"text": "[% include '../secrets.txt' %]"}, ["bad/mail.txt: "]),
        ({"text": "[[ 1 // 0 ]]"}, ["ZeroDivisionError"]),
        ({"text": "{% for a in name %}" * 30 + "{% endfor %}" * 30}, ["SyntaxError"]),
        ({"text": "{% for a in name %}" * 9 + "{{ name }}" + "{% endfor %}" * 9, "sample": {"name": "x" * 10}},
         ["writes more than 1000000 characters"]),
        ({"templateId": "other"}, ["templateId must be the folder's name"]),
        ({"sample": {}}, ["name is missing"]),
        ({"html": "{{ unsubscribeUrl }}"}, ["unsubscribeUrl is for templates whose only category is marketing"]),
    ],
)  # fmt: skip
def test_a_broken_one_is_told_of_whole_and_takes_nothing_down(
    tmp_path: Path, template: dict[str, Any], told: list[str]
) -> None:
    write_own(tmp_path, "receipt")
    write_own(tmp_path, "bad", **template)
    catalogue = beside(tmp_path)
    assert {each.template_id for each in catalogue.list()} == {*SHIP, "receipt"}
    assert catalogue.preview("receipt").text == "Thanks, Ada.\n"
    (name,) = catalogue.broken
    assert name == "bad"
    everything = " ".join(catalogue.broken["bad"])
    assert [each for each in told if each not in everything] == []
    with pytest.raises(PermanentError, match="the template bad is broken") as caught:
        catalogue.problems("bad", {})
    assert caught.value.reason == "invalid"


def test_files_that_are_none_are_told_of_too(tmp_path: Path) -> None:
    write_own(tmp_path, "bytes")
    (tmp_path / "bytes/mail.html").write_bytes(b"\xff\xfe")
    write_own(tmp_path, "json")
    (tmp_path / "json/manifest.json").write_bytes(b"\xff{")
    write_own(tmp_path, "folder")
    (tmp_path / "folder/mail.txt").unlink()
    (tmp_path / "folder/mail.txt").mkdir()
    write_own(tmp_path, "nothing")
    (tmp_path / "nothing/manifest.json").unlink()
    write_own(tmp_path, "dangling")
    (tmp_path / "dangling/manifest.json").unlink()
    (tmp_path / "dangling/manifest.json").symlink_to(tmp_path / "nowhere")
    write_own(tmp_path, "welcome")
    catalogue = beside(tmp_path)
    assert {each.template_id for each in catalogue.list()} == SHIP
    assert set(catalogue.broken) == {"bytes", "json", "folder", "nothing", "dangling", "welcome"}
    assert catalogue.get("welcome").version == CATALOGUE.get("welcome").version
    assert "a template that ships has this id" in catalogue.broken["welcome"][0]


def test_a_directory_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        beside(tmp_path / "nowhere")


def test_a_template_for_marketing_has_the_recipients_own_way_out(tmp_path: Path) -> None:
    html = OWN_HTML.replace("Thanks", '<a href="{{ unsubscribeUrl }}">leave</a>')
    write_own(tmp_path, "news", html=html, text="{{ name }}: {{ unsubscribeUrl }}", categories=["marketing"])
    rendered = beside(tmp_path).preview("news")
    assert 'href="{{unsubscribeUrl}}"' in rendered.html, "what the sender puts each recipient's link for"
    assert rendered.text == "Ada: {{unsubscribeUrl}}\n"
