"""Judges an Autobahn report: verdict.py INDEX.json CASES. Ends with the line `N passed, N failed, N skipped`.

A case counts once per server. It passes when its behaviour and its close are OK or, where the suite
only observes, INFORMATIONAL; NON-STRICT fails, and so does a case that is missing from the report.
"""
import json
import sys

GOOD = ("OK", "INFORMATIONAL")

report = json.load(open(sys.argv[1]))
expected = int(sys.argv[2])
passed = failed = 0
for agent in sorted(report):
    cases = report[agent]
    bad = sorted(
        (case, verdict["behavior"], verdict["behaviorClose"])
        for case, verdict in cases.items()
        if verdict["behavior"] not in GOOD or verdict["behaviorClose"] not in GOOD
    )
    for case, behaviour, close in bad:
        print("FAILED %s: case %s is %s, its close %s" % (agent, case, behaviour, close))
    missing = max(0, expected - len(cases))
    if missing:
        print("FAILED %s: %d of %d cases were not run" % (agent, missing, expected))
    informational = sum(1 for verdict in cases.values() if verdict["behavior"] == "INFORMATIONAL")
    good = len(cases) - len(bad)
    print("%s: %d of %d cases OK, %d of these informational" % (agent, good, expected, informational))
    passed += good
    failed += len(bad) + missing
print("%d passed, %d failed, 0 skipped" % (passed, failed))
sys.exit(failed > 0 or passed == 0)
