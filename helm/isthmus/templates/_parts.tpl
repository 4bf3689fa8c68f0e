{{/* How the pods are found. */}}
{{- define "isthmus.selector" -}}
app.kubernetes.io/name: isthmus
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* Metadata of an object, from its name; namespaced is false for what has no namespace. */}}
{{- define "isthmus.metadata" -}}
metadata:
  name: {{ .name }}
  {{- if ne .namespaced false }}
  namespace: {{ .root.Release.Namespace }}
  {{- end }}
  labels:
    app.kubernetes.io/name: isthmus
    app.kubernetes.io/instance: {{ .root.Release.Name }}
    app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
    app.kubernetes.io/managed-by: {{ .root.Release.Service }}
    helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
  {{- with merge (dict) (.annotations | default dict) .root.Values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Whether the API server is asked at all. */}}
{{- define "isthmus.reads" -}}
{{- if (.Values.config.kubernetes | default dict).enabled }}yes{{ end }}
{{- end }}

{{/* Name of a role or binding, with what tells releases apart at its end, as kustomize's suffix does. */}}
{{- define "isthmus.role" -}}
{{- $name := .root.Release.Name }}
{{- if hasPrefix "isthmus" $name -}}
isthmus-{{ .part }}{{ trimPrefix "isthmus" $name }}
{{- else -}}
isthmus-{{ .part }}-{{ $name }}
{{- end }}
{{- end }}

{{- define "isthmus.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ .Release.Name }}
    namespace: {{ .Release.Namespace }}
{{- end }}
