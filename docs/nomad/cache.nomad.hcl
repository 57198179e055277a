job "cache" {
  type = "service"

  # One pod after the other, once it is ready.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    healthy_deadline = "5m"
  }

  group "cache" {
    count = 3

    network {
      port "control" {
        to = 8080
      }
      port "redis" {
        to = 6379
      }
    }

    service {
      name     = "cache"
      provider = "nomad"
      port     = "redis"

      check {
        type     = "http"
        port     = "control"
        path     = "/readyz"
        interval = "5s"
        timeout  = "2s"
      }
    }

    service {
      name     = "cache-control"
      provider = "nomad"
      port     = "control"

      check {
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "5s"

        # A pod that waits for its cluster answers here: only a host that hangs is restarted.
        check_restart {
          limit = 3
          grace = "60s"
        }
      }
    }

    task "cache" {
      driver = "docker"
      user   = "65532:65532"

      # One second more than ochopod_stop_timeout; max_kill_timeout of the client must allow it.
      kill_timeout = "60s"

      config {
        image           = "registry.example.com/cache:1"
        args            = ["run", "/redis.cwasm", "--net", "peers"]
        ports           = ["control", "redis"]
        readonly_rootfs = true
        cap_drop        = ["all"]

        # Uploads of /exec and /reload.
        mount {
          type   = "tmpfs"
          target = "/tmp"
        }
      }

      env {
        ochopod_zk             = "zk://zk1:2181,zk2:2181,zk3:2181"
        ochopod_cluster        = "cache"
        ochopod_stop_timeout   = "59"
        ochopod_token_file     = "${NOMAD_SECRETS_DIR}/token"
        ochopod_exit_when_dead = "true"
        ochopod_node           = "${node.unique.name}"
        ochopod_ip             = "${NOMAD_IP_control}"
        PORT_8080              = "${NOMAD_HOST_PORT_control}"
        PORT_6379              = "${NOMAD_HOST_PORT_redis}"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/cache\" }}{{ .token }}{{ end }}"
        destination = "secrets/token"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
      }

      resources {
        cpu    = 250
        memory = 512
      }
    }
  }
}
