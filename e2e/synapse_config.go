package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// unlimited is a rate limit that no test reaches.
const unlimited = `{per_second: 1000000, burst_count: 1000000}`

// Strings go in as JSON, which YAML reads. msc2409 and msc3202 make Synapse send to-device messages, device lists and
// key counts to appservices whose registration asks for them.
var synapseConfig = template.Must(template.New("homeserver.yaml").Funcs(template.FuncMap{
	"quote": func(v string) (string, error) {
		data, err := json.Marshal(v)
		return string(data), err
	},
	"unlimited": func() string { return unlimited },
}).Parse(`server_name: {{quote .Domain}}
public_baseurl: {{quote .URL}}
listeners:
  - port: {{.Port}}
    bind_addresses: ["127.0.0.1"]
    type: http
    resources: [{names: [client]}]
{{- if .Postgres}}
database:
  name: psycopg2
  allow_unsafe_locale: true
  args: {dsn: {{quote .Postgres}}, cp_min: 1, cp_max: 5}
{{- else}}
database:
  name: sqlite3
  args: {database: {{quote (print .Dir "/homeserver.db")}}}
{{- end}}
media_store_path: {{quote (print .Dir "/media")}}
signing_key_path: {{quote (print .Dir "/signing.key")}}
pid_file: {{quote (print .Dir "/homeserver.pid")}}
log_config: {{quote (print .Dir "/log.yaml")}}
app_service_config_files:
{{- range .Registrations}}
  - {{quote .}}
{{- else}} []
{{- end}}
experimental_features:
  msc2409_to_device_messages_enabled: true
  msc3202_transaction_extensions: true
registration_shared_secret: {{quote .Secret}}
macaroon_secret_key: {{quote (print .Secret "-macaroon")}}
form_secret: {{quote (print .Secret "-form")}}
bcrypt_rounds: 4
presence: {enabled: true}
background_updates: {sleep_enabled: false}
report_stats: false
trusted_key_servers: []
suppress_key_server_warning: true
federation_domain_whitelist: []
rc_message: {{unlimited}}
rc_registration: {{unlimited}}
rc_login: {address: {{unlimited}}, account: {{unlimited}}, failed_attempts: {{unlimited}}}
rc_joins: {local: {{unlimited}}, remote: {{unlimited}}}
rc_joins_per_room: {{unlimited}}
rc_invites: {per_room: {{unlimited}}, per_user: {{unlimited}}, per_issuer: {{unlimited}}}
rc_room_creation: {{unlimited}}
rc_media_create: {{unlimited}}
rc_presence: {per_user: {{unlimited}}}
`))

const synapseLogConfig = `version: 1
formatters: {line: {format: "%(asctime)s %(name)s %(levelname)s %(request)s %(message)s"}}
handlers: {out: {class: logging.StreamHandler, formatter: line}}
loggers:
  synapse.storage: {level: WARNING}
  synapse.util: {level: WARNING}
root: {level: INFO, handlers: [out]}
disable_existing_loggers: false
`

// configure writes what Synapse reads at its start. A signing key is made by Synapse itself only when it is told to
// generate everything; one line is all it needs, so it is written here.
func (s *Synapse) configure(port int, opts SynapseOptions) error {
	var registrations []string
	for i, path := range opts.Registrations {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading a registration: %w", err)
		}
		name := fmt.Sprintf("registration-%d.yaml", i)
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			return fmt.Errorf("copying a registration: %w", err)
		}
		registrations = append(registrations, filepath.Join(s.inside, name))
	}
	var config strings.Builder
	err := synapseConfig.Execute(&config, map[string]any{
		"Domain": s.Domain, "URL": s.URL + "/", "Port": port, "Dir": s.inside, "Secret": s.secret,
		"Postgres": opts.Postgres, "Registrations": registrations,
	})
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	for name, content := range map[string]string{
		"homeserver.yaml": config.String(),
		"config.yaml":     opts.Config,
		"log.yaml":        synapseLogConfig,
		"signing.key":     signingKey(),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}
