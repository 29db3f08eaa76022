"""Settings: file < environment < flags, each value with its origin, each fault in one line."""

from pathlib import Path

import pytest

from relay.model.errors import ConfigError
from relay.settings.environment import as_environment
from relay.settings.loader import load, load_settings
from relay.settings.schema import Mode, Settings, TlsPolicy


def written(folder: Path, text: str) -> Path:
    path = folder / "relay.toml"
    path.write_text(text)
    return path


def fault(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), environ={})
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence.replace(f"{folder}/", "")


def variable_fault(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ=environ)
    return str(caught.value)


def test_settings_without_file_and_variables_are_the_defaults() -> None:
    loaded = load(environ={"PATH": "/bin"})
    assert loaded.settings == Settings()
    assert loaded.path is None
    assert loaded.origin("smtp.listen") == "default"


def test_settings_of_flags_go_before_variables_and_those_before_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, '[log]\nlevel = "debug"\nformat = "json"\nredact_addresses = true\n')
    loaded = load(
        path,
        flags={"log.level": "error"},
        environ={"RELAY_LOG_LEVEL": "warning", "RELAY_LOG_FORMAT": "human"},
    )
    log = loaded.settings.log
    assert (log.level, log.format, log.redact_addresses) == ("error", "human", True)
    assert loaded.origin("log.level") == "flag log.level"
    assert loaded.origin("log.format") == "RELAY_LOG_FORMAT"
    assert loaded.origin("log.redact_addresses") == f"{path}:4"


def test_settings_file_is_named_by_relay_config(tmp_path: Path) -> None:
    path = written(tmp_path, '[delivery]\nmode = "live"\n')
    assert load_settings(environ={"RELAY_CONFIG": str(path)}).delivery.mode is Mode.LIVE


def test_settings_read_human_units(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[timeouts]\nconnect = "1m 30s"\ngreeting = 10\n[limits]\nmessage_size = "10 MiB"\n'
        "recipients = 1_000\n[retry]\njitter = 0\n",
    )
    settings = load_settings(path, environ={})
    assert settings.timeouts.connect == 90.0
    assert settings.timeouts.greeting == 10.0
    assert settings.limits.message_size == 10 * 1024**2
    assert settings.limits.recipients == 1000


def test_settings_of_variables_read_lists_numbers_and_words() -> None:
    settings = load_settings(
        environ={
            "RELAY_SMTP_LISTEN": "127.0.0.1:25, [::1]:25",
            "RELAY_SMTP_MAX_CONNECTIONS": "2_000",
            "RELAY_DELIVERY_ALLOW_PRIVATE": "Yes",
            "RELAY_REDIS_ACCEPT_WATERMARK": "0.5",
            "RELAY_DNS_NAMESERVERS": "127.0.0.53:53,2001:db8::1",
        }
    )
    assert settings.smtp.listen == ("127.0.0.1:25", "[::1]:25")
    assert settings.smtp.max_connections == 2000
    assert settings.delivery.allow_private is True
    assert settings.redis.accept_watermark == 0.5
    assert settings.dns.nameservers == ("127.0.0.53:53", "2001:db8::1")


def test_settings_routes_are_tables_of_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[[routes]]\ndomain = "*"\nsmarthost = "smtps://u:p@smtp.example.com:465"\n'
        '[[routes]]\ndomain = ".example.org"\ntls = "verified"\n',
    )
    first, second = load_settings(path, environ={}).routes
    assert first.smarthost == "smtps://u:p@smtp.example.com:465"
    assert second.tls is TlsPolicy.VERIFIED


def test_settings_secret_is_read_from_the_file_that_a_variable_names(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://:pw@127.0.0.1:6379/0\n")
    loaded = load(environ={"RELAY_REDIS_URL_FILE": str(secret)})
    assert loaded.settings.redis.url == "redis://:pw@127.0.0.1:6379/0"
    assert loaded.origin("redis.url") == f"RELAY_REDIS_URL_FILE ({secret})"


def test_settings_secret_given_twice_is_a_fault(tmp_path: Path) -> None:
    sentence = variable_fault(
        RELAY_REDIS_URL="redis://127.0.0.1", RELAY_REDIS_URL_FILE=str(tmp_path / "url")
    )
    assert sentence == "RELAY_REDIS_URL_FILE: RELAY_REDIS_URL is set too; unset one of them"


def test_settings_secret_never_shows_in_a_fault(tmp_path: Path) -> None:
    assert "hunter2" not in variable_fault(RELAY_DELIVERY_SMARTHOST="http://u:hunter2@host")
    text = '[[routes]]\ndomain = "*"\nsmarthost = "smtp://u:hunter2@host:port"\n'
    assert "hunter2" not in fault(tmp_path, text)


def test_settings_secret_behind_a_lost_quotation_mark_never_shows(tmp_path: Path) -> None:
    text = """[http]\nlisten = '''\nkeys = ["hunter2"]\nx = '''"""
    assert "a text of several lines does not fit" in fault(tmp_path, text)


def test_settings_smarthost_may_be_an_lmtp_host_or_socket(tmp_path: Path) -> None:
    for url in ("lmtp://u:hunter2@host", "lmtp:///run/dovecot/lmtp"):
        path = tmp_path / "relay.toml"
        path.write_text(f'[delivery]\nsmarthost = "{url}"\n')
        assert load(path, environ={}).settings.delivery.smarthost == url


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[smtp]\n# hi\nmax_conections = 5\n",
            "relay.toml:3: smtp.max_conections: no such setting; did you mean max_connections?",
        ),
        ("[smpt]\n", "relay.toml:1: smpt: no such section; did you mean smtp?"),
        (
            '\n[log]\nlevel = "inof"\n',
            "relay.toml:3: log.level: 'inof' does not fit: expected one of debug, info, warning, "
            "error; did you mean info?",
        ),
        (
            "[timeouts]\nconnect = 'soon'\n",
            "relay.toml:2: timeouts.connect: 'soon' does not fit: expected a duration such as "
            '"5m" or "1h 30m" above 0',
        ),
        (
            "[retry]\njitter = 1.5\n",
            "relay.toml:2: retry.jitter: 1.5 does not fit: expected a number from 0 to 1",
        ),
        (
            "[smtp]\nlisten = ['127.0.0.1']\n",
            "relay.toml:2: smtp.listen: ['127.0.0.1'] does not fit: expected a list, each item an "
            'address and a port such as "127.0.0.1:2525" or "[::1]:2525"',
        ),
        (
            "[delivery]\nallow_private = 1\n",
            "relay.toml:2: delivery.allow_private: 1 does not fit: expected true or false",
        ),
        (
            "[[routes]]\ndomain = '*'\n\n[[routes]]\nsmarthost = 'smtp://h'\n",
            'relay.toml:4: routes.domain: is missing: write for example domain = "*"',
        ),
        (
            "[[routes]]\ndomain = '*'\n[[routes]]\ndomain = 'a'\ntls = 'maybe'\n",
            "relay.toml:5: routes.tls: 'maybe' does not fit: expected one of off, opportunistic, "
            "required, verified, dane",
        ),
        ("[smtp\n", "relay.toml:1: is not TOML: expected ']' at the end of a table declaration"),
        ("smtp = 5\n", "relay.toml:1: smtp: is a section: write [smtp] on a line of its own"),
        ("[routes]\ndomain='*'\n", "relay.toml:1: routes: is a list: write [[routes]]"),
        (
            "[http]\nlisten = '127.0.0.1:2525'\n",
            "relay.toml:2: http.listen: 127.0.0.1:2525 is used by smtp.listen too; choose another "
            "port",
        ),
        (
            "[dns]\nmin_ttl = '2h'\n",
            'relay.toml:2: dns.min_ttl: is above dns.max_ttl ("1h")',
        ),
        (
            "[files]\nshaping = 'other.toml'\n",
            "relay.toml:2: files.shaping: no such file: other.toml",
        ),
        (
            f"[files]\nshaping = '/{'x' * 300}'\n",
            f"relay.toml:2: files.shaping: no such file: /{'x' * 199}",
        ),
        (
            f"[smtp]\nmax_errors = {'9' * 40}\n",
            f"relay.toml:2: smtp.max_errors: {'9' * 40} does not fit: expected a whole number, "
            "1 or more",
        ),
        (
            f"[limits]\nmessage_size = '{'9' * 305} GiB'\n",
            f"relay.toml:2: limits.message_size: '{'9' * 58}… does not fit: expected a size such "
            'as "25 MiB" above 0',
        ),
        (
            f"x = {'[' * 5000}{']' * 5000}\n",
            "relay.toml: is not TOML that we read: nested too deeply",
        ),
        (
            f"x = {'9' * 5000}\n",
            "relay.toml: is not TOML that we read: a number is too long",
        ),
    ],
)
def test_settings_fault_names_file_line_key_fault_and_fix(
    tmp_path: Path, text: str, sentence: str
) -> None:
    assert fault(tmp_path, text) == sentence


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "true", "'-5m'", "[]", "{}"])
def test_settings_duration_refuses_what_is_no_duration(tmp_path: Path, value: str) -> None:
    assert "timeouts.connect: " in fault(tmp_path, f"[timeouts]\nconnect = {value}\n")


@pytest.mark.parametrize("schedule", ["", "*", "5m* 1h", "0s", "soon", "5m, 1h"])
def test_settings_schedule_refuses_what_is_none(tmp_path: Path, schedule: str) -> None:
    assert "retry.bulk: " in fault(tmp_path, f"[retry]\nbulk = '{schedule}'\n")


@pytest.mark.parametrize("listen", ["host:25", "127.0.0.1:70000", "::1:25", ":25", "1.2.3:25"])
def test_settings_listen_refuses_what_is_no_address_and_port(tmp_path: Path, listen: str) -> None:
    assert "http.listen: " in fault(tmp_path, f"[http]\nlisten = '{listen}'\n")


def test_settings_missing_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml", environ={})


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("RELAY_SMTP_LISTN", "; did you mean RELAY_SMTP_LISTEN?"),
        ("RELAY_DELIVRY_MODE", "; did you mean RELAY_DELIVERY_MODE?"),
        ("RELAY_SMTP_QQQQQQQQQ", ""),
    ],
)
def test_settings_unknown_variable_is_a_fault(variable: str, hint: str) -> None:
    assert variable_fault(**{variable: "1"}) == f"{variable}: no such setting{hint}"


@pytest.mark.parametrize(
    "variable",
    ["RELAY_API", "RELAY_REDIS_SERVER", "RELAY_FLAVOUR", "RELAY_SMTP_PORT", "RELAY_SERVICE_HOST"],
)
def test_settings_variables_that_are_no_settings_are_left_alone(variable: str) -> None:
    assert load_settings(environ={variable: "tcp://10.0.0.1:25"}) == Settings()


def test_settings_empty_variable_counts_as_not_set() -> None:
    assert load_settings(environ={"RELAY_DELIVERY_MODE": ""}).delivery.mode is None


def test_settings_flag_that_is_no_setting_is_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"flag: smtp\.lisen: .* did you mean listen"):
        load(flags={"smtp.lisen": "127.0.0.1:1"}, environ={})


def test_settings_data_files_beside_the_file_are_used(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    (tmp_path / "shaping.toml").write_text("")
    loaded = load(path, environ={})
    assert loaded.settings.files.shaping == str(tmp_path / "shaping.toml")
    assert loaded.origin("files.shaping") == f"beside {path}"
    assert loaded.settings.files.replies == ""


def test_settings_survive_the_way_through_the_environment() -> None:
    given = {
        "smtp.listen": ["127.0.0.1:1", "127.0.0.1:2"],
        "delivery.mode": "live",
        "delivery.allow_private": True,
        "redis.url": "unix:///run/redis.sock",
        "timeouts.connect": 0.5,
    }
    settings = load_settings(flags=given, environ={})
    assert load_settings(environ=as_environment(settings, given)) == settings


def test_address_of_a_setting_is_one_or_nothing() -> None:
    given = {"RELAY_TLS_REPORT_CONTACT": "Tls@Example.org"}
    assert load_settings(environ=given).tls.report_contact == "Tls@example.org"
    for wrong in ("postmaster", "a@b.test\r\nBcc: c@d.test", "a@b.test, c@d.test"):
        with pytest.raises(ConfigError, match="a mail address such as"):
            load_settings(environ={"RELAY_TLS_REPORT_CONTACT": wrong})
