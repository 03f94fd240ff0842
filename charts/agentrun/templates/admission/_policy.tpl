{{- /*
The head of a policy, and its binding, which has its name. Call with a dict: root, name, and kind (Validating, Mutating).
A binding reaches the namespaces that this release watches, so that two releases share a cluster.
*/ -}}
{{- define "agentrun.policy.head" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: {{ .kind }}AdmissionPolicy
metadata:
  name: {{ include "agentrun.fullname" .root }}-{{ .name }}
  labels: {{- include "agentrun.labels" .root | nindent 4 }}
{{- end -}}

{{- define "agentrun.policy.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: {{ .kind }}AdmissionPolicyBinding
metadata:
  name: {{ include "agentrun.fullname" .root }}-{{ .name }}
  labels: {{- include "agentrun.labels" .root | nindent 4 }}
spec:
  policyName: {{ include "agentrun.fullname" .root }}-{{ .name }}
  {{- if eq .kind "Validating" }}
  validationActions: [Deny]
  {{- end }}
  {{- with .root.Values.watch.namespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
  {{- end }}
{{- end -}}

{{- /* A binding for every namespace: what binds the operator itself must hold where it has no business, too. */ -}}
{{- define "agentrun.policy.binding.everywhere" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: {{ .kind }}AdmissionPolicyBinding
metadata:
  name: {{ include "agentrun.fullname" .root }}-{{ .name }}
  labels: {{- include "agentrun.labels" .root | nindent 4 }}
spec:
  policyName: {{ include "agentrun.fullname" .root }}-{{ .name }}
  validationActions: [Deny]
{{- end -}}

{{- /* The variables that every policy here has. */ -}}
{{- define "agentrun.policy.who" -}}
- {name: user, expression: request.userInfo.username}
- {name: isOperator, expression: "request.userInfo.username == '{{ include "agentrun.username" . }}'"}
{{- end -}}
