"""Reports as JUnit XML, as continuous integration reads it: a suite for each spec, a case for each property."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as Tree

from holotype_conformance.judge.records import Report, Result
from holotype_conformance.report.declared import named, warnings
from holotype_conformance.report.text import clean, failure_text

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(reports: Sequence[Report]) -> str:
    """An XML document with one ``testsuite`` for each report."""
    suites = [_suite(report) for report in reports]
    root = Tree.Element("testsuites", {"name": "holotype", **_sums(suites)})
    root.extend(suites)
    Tree.indent(root)
    text = Tree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _sums(suites: Sequence[Tree.Element]) -> dict[str, str]:
    counts = {
        name: str(sum(int(suite.attrib[name]) for suite in suites))
        for name in ("tests", "failures", "errors", "skipped")
    }
    return counts | {"time": f"{sum(float(suite.attrib['time']) for suite in suites):.6f}"}


def _suite(report: Report) -> Tree.Element:
    cases = [_case(report, result) for result in report.results] or [_unusable(report)]
    if report.uncompared is not None and report.unusable is None:
        cases.append(_uncompared(report))
    suite = Tree.Element(
        "testsuite",
        {
            "name": report.spec,
            "tests": str(len(cases)),
            "failures": str(sum(case.find("failure") is not None for case in cases)),
            "errors": str(sum(case.find("error") is not None for case in cases)),
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
            "time": f"{sum(result.seconds for result in report.results):.6f}",
        },
    )
    suite.append(_properties(report))
    suite.extend(cases)
    return suite


def _properties(report: Report) -> Tree.Element:
    properties = Tree.Element("properties")
    facts = {"candidate": report.candidate, "seed": str(report.seed), "profile": report.profile}
    facts |= {"verdict": report.verdict, "conclusion": report.conclusion}
    if report.environment is not None:
        environment = report.environment
        facts |= {"python": environment.python, "platform": environment.platform}
        facts |= {"device": environment.device, "threads": str(environment.threads)}
        facts |= environment.arithmetic | environment.versions
    for each in report.declared:
        facts[f"declared: {named(each)}"] = each.reason
    for number, said in enumerate(warnings(report), start=1):
        facts[f"warning {number}"] = said
    facts |= {"left running": "; ".join(report.left[:20])} if report.left else {}
    for name, value in facts.items():
        Tree.SubElement(properties, "property", {"name": name, "value": _text(value)})
    return properties


def _case(report: Report, result: Result) -> Tree.Element:
    case = Tree.Element(
        "testcase",
        {
            "classname": f"holotype.{report.spec}",
            "name": result.property,
            "time": f"{result.seconds:.6f}",
        },
    )
    message = _text(result.reason or "")
    if result.outcome == "error":
        child = Tree.SubElement(case, "error", {"message": message, "type": "error"})
        child.text = _text(result.details or message)
    elif result.undecided:  # red: continuous integration has no word for what is neither
        child = Tree.SubElement(case, "error", {"message": message, "type": result.outcome})
        child.text = _text(failure_text(result))
    elif result.breaks:
        child = Tree.SubElement(case, "failure", {"message": message, "type": result.outcome})
        child.text = _text(failure_text(result))
    elif result.outcome == "passed":
        if message:
            Tree.SubElement(case, "system-out").text = message
    else:
        said = message if result.outcome == "skipped" else f"{result.outcome}: {message}"
        Tree.SubElement(case, "skipped", {"message": said})
    return case


def _unusable(report: Report) -> Tree.Element:
    """The entry of a spec of which nothing could be run."""
    case = Tree.Element(
        "testcase", {"classname": f"holotype.{report.spec}", "name": "run", "time": "0.000000"}
    )
    Tree.SubElement(
        case, "error", {"message": _text(report.unusable or "nothing ran"), "type": "error"}
    )
    return case


def _uncompared(report: Report) -> Tree.Element:
    """The entry of the comparison that a verdict lacks: without it the file would be green."""
    case = Tree.Element(
        "testcase",
        {"classname": f"holotype.{report.spec}", "name": "compared", "time": "0.000000"},
    )
    said = f"no number was compared with {report.spec}'s: {report.uncompared}"
    Tree.SubElement(case, "error", {"message": _text(said), "type": "undecided"})
    return case


def _text(value: str) -> str:
    """The part of `value` that XML 1.0 can carry."""
    return _NOT_XML.sub("", clean(value))
