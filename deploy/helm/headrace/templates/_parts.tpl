{{- define "headrace.labels" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "headrace.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "headrace.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with .Values.secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "headrace.mounts" -}}
- {name: settings, mountPath: /etc/headrace, readOnly: true}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if .Values.releases.claim }}
- {name: releases, mountPath: /releases}
{{- end }}
{{- end }}

{{- define "headrace.volumes" -}}
- name: settings
  configMap: {name: {{ .Release.Name }}-settings}
- name: tmp
  emptyDir: {}
{{- with .Values.releases.claim }}
- name: releases
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- end }}
