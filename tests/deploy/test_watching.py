"""Dashboard, alerts and scrape configuration ask for metrics that exist, and alerts fire when they should."""

import ast
import json
import re
import shutil
import subprocess

import pytest
import yaml

from fedmedclip.aggregator import prometheus as of_aggregator
from fedmedclip.edge_client.site import prometheus as of_site
from fedmedclip.edge_client.site.numbers import SiteNumbers
from tests import ROOT
from tests.aggregator.test_prometheus import STATUS
from tests.conftest import missing

DASHBOARD = ROOT / "deploy" / "grafana" / "fedmedclip.json"
FOLDER = ROOT / "deploy" / "prometheus"
ALERTS = FOLDER / "alerts.yml"
# What the kinds of metrics are called when they are read, by the methods and classes that make them.
ENDINGS = {
    "gauge": [""], "counter": ["_total"], "info": ["_info"], "GaugeMetricFamily": [""], "_gauges": [""],
    "CounterMetricFamily": ["_total"], "Counter": ["_total"], "_counts": ["_total"],
    "InfoMetricFamily": ["_info"], "Histogram": ["_bucket", "_sum", "_count"],
    "HistogramMetricFamily": ["_bucket", "_sum", "_count"],
}  # fmt: skip
SOURCES = {
    "aggregator/prometheus.py": f"{of_aggregator.PREFIX}_",
    "edge_client/site/prometheus.py": f"{of_site.PREFIX}_",
    "edge_client/serving/http/metrics.py": "",
}


def exported():
    """Return the names of all metrics that the code makes, with the labels of each."""
    found = {}
    for file, prefix in SOURCES.items():
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            kind = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for ending in ENDINGS.get(kind, []):
                found[f"{prefix}{node.args[0].value}{ending}"] = {
                    *(keyword.arg for keyword in node.keywords if keyword.arg),
                    *re.findall(r"'(\w+)'", ast.unparse(node)),
                }
    return found


EXPORTED = exported()


def names_in(expression):
    return set(re.findall(r"\bfedmedclip_\w+", expression))


def expressions():
    """Yield the place and text of everything that is asked of Prometheus."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_metrics_are_found_in_the_code():
    assert set(EXPORTED) > {
        "fedmedclip_aggregator_version",
        "fedmedclip_site_sent_bytes_total",
        "fedmedclip_answer_seconds_bucket",
        "fedmedclip_results_total",
        "fedmedclip_drift",
        "fedmedclip_model_info",
    }


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_what_is_asked_for_exists(place, expression):
    asked = names_in(expression)
    assert asked, f"{place} asks for no metric of ours"
    assert asked - set(EXPORTED) == set()
    for name, labels in re.findall(r"\b(fedmedclip_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*=", labels)) <= EXPORTED[name]


def test_the_dashboard_is_one_that_grafana_takes():
    dashboard = json.loads(DASHBOARD.read_text())
    (variable,) = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    assert {"title", "uid", "schemaVersion", "panels", "time", "refresh"} <= set(dashboard)
    panels = dashboard["panels"]
    identifiers = [panel["id"] for panel in panels]
    assert len(set(identifiers)) == len(identifiers)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_there_are_five_alerts_that_say_what_and_what_to_do():
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    assert len(group["rules"]) == 5
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    for rule in group["rules"]:
        assert {"alert", "expr", "for", "labels", "annotations"} == set(rule)
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert f"`{rule['alert']}`" in page


def test_the_example_scrapes_each_party_at_its_default_port():
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs} == {
        "fedmedclip-aggregator": ["127.0.0.1:8780"],
        "fedmedclip-site": ["127.0.0.1:8781"],
        "fedmedclip-serve": ["127.0.0.1:8080"],
    }


@pytest.fixture(scope="module")
def promtool():
    tool = shutil.which("promtool")
    if tool is None:
        missing("promtool of Prometheus is not installed")
    return tool


def test_prometheus_takes_rules_and_configuration(promtool):
    done = subprocess.run(
        [promtool, "check", "config", FOLDER / "prometheus.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout


def test_prometheus_reads_what_is_exported(promtool):
    site = SiteNumbers(
        federation="thorax", site="north", running=True, connected=True, connections=2, sent_bytes=10,
        images={"train": 9}, consent="asked", accuracy={"shared": 0.9}, certificate_ends=1.8e9,
    )  # fmt: skip
    for text in (of_aggregator.metrics_text(STATUS), of_site.metrics_text(site)):
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        read = {line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE")}
        assert read <= set(EXPORTED)


# Series of a value every four minutes, the minutes after which to look, and labels of the alert; None: none.
AGGREGATOR, SITE = "fedmedclip_aggregator_", "fedmedclip_site_"
OVERDUE = {f"{AGGREGATOR}round_seconds": "1000x25", f"{AGGREGATOR}round_limit_seconds": "100x25"}
CASES = [
    ("FedmedclipStandsStill", {f"{AGGREGATOR}up": "1x25"}, 30, None),
    ("FedmedclipStandsStill", {f"{AGGREGATOR}up": "0x25"}, 30, {"cause": "the aggregator does not run"}),
    (
        "FedmedclipStandsStill",
        OVERDUE | {f"{AGGREGATOR}paused": "0x25"},
        30,
        {"cause": "a round is open for more than twice its time"},
    ),
    ("FedmedclipStandsStill", OVERDUE | {f"{AGGREGATOR}paused": "1x25"}, 30, None),
    ("FedmedclipMemberAway", {f'{AGGREGATOR}member_present{{site="north"}}': "0x25"}, 60, None),
    (
        "FedmedclipMemberAway",
        {f'{AGGREGATOR}member_present{{site="north"}}': "0x370"},
        1450,
        {"site": "north"},
    ),
    (
        "FedmedclipMessagesRefused",
        {f'{AGGREGATOR}refused_messages_total{{site="north"}}': "0+4x25"},
        80,
        {"site": "north", "who": "north"},
    ),
    (
        "FedmedclipMessagesRefused",
        {f'{AGGREGATOR}refused_messages_total{{site="north"}}': "0+0.4x25"},
        80,
        None,
    ),
    (
        "FedmedclipCertificateExpires",
        {f'{AGGREGATOR}certificate_expiry_timestamp_seconds{{whose="north"}}': "900000x25"},
        80,
        {"whose": "north"},
    ),
    (
        "FedmedclipCertificateExpires",
        {f"{SITE}certificate_expiry_timestamp_seconds": "2600000x25"},
        80,
        None,
    ),
    (
        "FedmedclipHospitalStopped",
        {"fedmedclip_ready": "0x25"},
        30,
        {"cause": "the service answers no images"},
    ),
    (
        "FedmedclipHospitalStopped",
        {f"{SITE}sent_bytes_today": "990x25", f"{SITE}limit_bytes_per_day": "1000x25"},
        30,
        {"cause": "the bytes that may leave today are used up"},
    ),
    (
        "FedmedclipHospitalStopped",
        {f"{SITE}sent_bytes_today": "500x25", f"{SITE}limit_bytes_per_day": "1000x25"},
        30,
        None,
    ),
]


def test_alerts_fire_when_they_should_and_not_else(promtool, tmp_path):
    rules = yaml.safe_load(ALERTS.read_text())
    # What is tried is when they fire, not their words.
    severity = {}
    for rule in rules["groups"][0]["rules"]:
        severity[rule["alert"]] = rule["labels"]["severity"]
        del rule["annotations"]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    tests = []
    for number, (alert, given, minutes, labels) in enumerate(CASES):
        fired = [] if labels is None else [{"exp_labels": labels | {"severity": severity[alert]}}]
        tests.append(
            {
                "name": f"case {number}",
                "interval": "4m",
                "input_series": [{"series": name, "values": values} for name, values in given.items()],
                "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": fired}],
            }
        )
    file = tmp_path / "test.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": ["alerts.yml"], "evaluation_interval": "4m", "tests": tests})
    )
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
