{{/* What everything is called: the release's name, with the chart's if that is not in it. */}}
{{- define "eventwriter.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- end }}

{{/* Labels of the pods of the service, by which they are chosen. */}}
{{- define "eventwriter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "eventwriter.labels" -}}
{{ include "eventwriter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "eventwriter.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{/* The ConfigMap with streams of one's own, or nothing. */}}
{{- define "eventwriter.plugins" -}}
{{- with .Values.plugins }}
{{- if .existingConfigMap }}{{ .existingConfigMap }}{{ else if .files }}{{ include "eventwriter.name" $ }}-plugins{{ end }}
{{- end }}
{{- end }}

{{/* What the pods of service and Job have in common, but for their containers' own. */}}
{{- define "eventwriter.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
volumes:
  - name: config
    configMap: {name: {{ include "eventwriter.name" . }}}
  {{- with .Values.existingSecret }}
  - name: secrets
    secret: {secretName: {{ . }}, defaultMode: 0440}
  {{- end }}
  {{- with include "eventwriter.plugins" . }}
  - name: plugins
    configMap: {name: {{ . }}}
  {{- end }}
{{- end }}

{{- define "eventwriter.container" -}}
image: {{ include "eventwriter.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - {name: EVENTWRITER_CONFIG, value: /etc/eventwriter/eventwriter.toml}
  # What the image sets would come before the file.
  - {name: EVENTWRITER_HTTP__LISTEN, value: ""}
  - {name: EVENTWRITER_HTTP__PUBLIC, value: ""}
  {{- if include "eventwriter.plugins" . }}
  - {name: EVENTWRITER_PLUGINS__FOLDERS, value: /etc/eventwriter-plugins}
  {{- end }}
  {{- range $name, $file := .Values.secretFiles }}
  - {name: {{ $name }}, value: /run/secrets/eventwriter/{{ $file }}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/eventwriter, readOnly: true}
  {{- if .Values.existingSecret }}
  - {name: secrets, mountPath: /run/secrets/eventwriter, readOnly: true}
  {{- end }}
  {{- if include "eventwriter.plugins" . }}
  - {name: plugins, mountPath: /etc/eventwriter-plugins, readOnly: true}
  {{- end }}
{{- end }}
