from tests.cluster.operator import Operator


def test_smoke(operator: Operator) -> None:
    space = operator.namespace()
    print(operator.replicas(), operator.holder(), operator.leader())
    old = operator.kill_leader()
    print(old, operator.logs()[-3000:])
    print(operator.metrics(operator.replicas()[0])[:300])
    print(operator.agentrun(space, "list").stdout)
