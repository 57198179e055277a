"""Runs Patroni. SIGHUP applies a changed list of ZooKeeper servers, which Patroni 3.0 reads only when it starts."""
import os
import shutil
import sys

if __name__ == '__main__':
    from patroni.__main__ import main
    from patroni.dcs.zookeeper import ZooKeeper

    if os.geteuid() == 0:
        sys.exit('PostgreSQL refuses to run as root: start the pod with --user postgres')
    for name in ('PATRONI_SUPERUSER_PASSWORD', 'PATRONI_REPLICATION_PASSWORD'):
        if not os.environ.get(name):
            sys.exit(f'{name} is not set: set ochopod_secret_{name}, the same on all pods')

    for program in ('postgres', 'pg_ctl', 'pg_controldata'):
        if not shutil.which(program):
            sys.exit(f'{program} is not in the PATH: add the programs of PostgreSQL, /usr/lib/postgresql/*/bin')

    reload_config = ZooKeeper.reload_config

    def reload_hosts(self, config):
        reload_config(self, config)
        self._client.set_hosts(','.join(config['zookeeper']['hosts']))

    ZooKeeper.reload_config = reload_hosts
    main()
