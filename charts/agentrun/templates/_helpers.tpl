{{- /* The name of everything that the release makes; cluster-scoped objects of two releases do not collide. */ -}}
{{- define "agentrun.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "agentrun.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agentrun.labels" -}}
{{ include "agentrun.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "agentrun.image" -}}
{{- with .Values.image -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "agentrun.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "agentrun.fullname" .) }}
{{- end -}}

{{- /* The name of the container's port with the metrics: that of the probes, unless they have a port of their own. */ -}}
{{- define "agentrun.metricsPort" -}}
{{ if eq (int .Values.metrics.port) 8080 }}probes{{ else }}metrics{{ end }}
{{- end -}}

{{- /* The operator, as the API server knows it. */ -}}
{{- define "agentrun.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "agentrun.serviceAccount" . }}
{{- end -}}

{{- /* The validating policies, in no order. Each has a binding of its name, and the operator asks for both. */ -}}
{{- define "agentrun.policies" -}}
{{- $name := include "agentrun.fullname" . -}}
{{- $all := list "approvals" "changed-by" "decisions" "identities" "pods" "requested-by" "run-status" -}}
{{- if .Values.admission.anotherPerson -}}{{ $all = concat $all (list "another-person" "another-workload") }}{{- end -}}
{{- range $index, $what := $all -}}
{{ if $index }},{{ end }}{{ $name }}-{{ $what }}
{{- end -}}
{{- end -}}

{{- /* A pod that Pod Security `restricted` admits. */ -}}
{{- define "agentrun.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "agentrun.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What a step's pod asks for, as JSON: quantities as text, however they were written. */ -}}
{{- define "agentrun.stepResources" -}}
{{- $found := dict -}}
{{- range $kind, $quantities := .Values.steps.resources -}}
{{- $texts := dict -}}
{{- range $name, $quantity := $quantities -}}
{{- $_ := set $texts $name (toString $quantity) -}}
{{- end -}}
{{- $_ := set $found $kind $texts -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
