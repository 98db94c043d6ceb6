{{- define "regard.selector" -}}
app.kubernetes.io/name: regard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "regard.labels" -}}
{{ include "regard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "regard.closed" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
